"""HATS: a catalog partitioned on the sky, as LSDB opens it.

The layout is that of HATS 1.0 (IVOA Note; github.com/astronomy-commons/hats), written with
Arrow and astropy-healpix alone:

    DIR/collection.properties
    DIR/NAME/hats.properties  partition_info.csv  point_map.fits  skymap.fits
    DIR/NAME/dataset/_metadata  _common_metadata  Norder=K/Dir=D/Npix=P.parquet
    DIR/NAME_5arcs/…            the margin cache: the stars just outside of each partition

Each partition is sorted by ``_healpix_29``. Memory holds one partition.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catalogproc.errors import CatalogprocError, JobError
from catalogproc.export import hats_partitions, range_reader
from catalogproc.export.hats_partitions import Partitions, Pixels
from catalogproc.export.range_reader import RowGroups, Sorter
from catalogproc.export.reader import Rows
from catalogproc.io import atomic
from catalogproc.io.parquet_writer import ROW_GROUP, described_schema, parquet_writer

KEY = "_healpix_29"
POSITION = (KEY, "ra", "dec")
"""The columns that HATS needs."""
MAX_ROWS = 1_000_000
"""Limit of stars per partition, the default of hats-import."""
VERSION = {"hats_release_date": "2025-08-22", "hats_version": "v1.0"}
"""The version of HATS that is written."""
MARGIN_OF = "_partition"
"""Column of a star in a margin: which partition's margin it is."""


def write_hats(rows: Rows, output: Path, overwrite: bool, *, max_rows: int = MAX_ROWS) -> None:
    """Write rows as a HATS collection, completely or not at all.

    Parameters
    ----------
    rows
        Rows with the columns :data:`POSITION`.
    output
        The folder; its name becomes the name of the catalog.
    overwrite
        Whether a HATS collection of that name may be replaced.
    max_rows
        Limit of stars per partition; only pixels of the highest order may exceed it. Of a run over
        a HATS catalog the partitions are those of its input, whatever their size.

    Raises
    ------
    JobError
        No star, or not every star, has a position.
    CatalogprocError
        The folder exists already, or cannot be written.
    """
    counts, given = _count(rows)
    partitions = given or hats_partitions.choose_partitions(counts, max_rows)
    name = re.sub(r"[^\w.-]", "_", output.resolve().name)
    with _new_folder(output, overwrite) as folder:
        scratch = folder / "scratch"
        schema = described_schema(rows.contract, rows.metadata, rows.widths)
        source = _row_source(rows, partitions, scratch)
        margin_rows = Sorter(scratch / "margin", MARGIN_OF)
        catalog = _Dataset(folder / name, schema)
        for number in range(len(partitions)):
            limits = int(partitions.low[number]), int(partitions.high[number])
            table = _in_order(source.read_range(*limits))
            catalog.write(partitions, number, table)
            margin_rows.add(_margin_stars(table, partitions, number))
            if rows.progress is not None:
                rows.progress(catalog.rows, rows.count, "")
        common = _common_properties(rows)
        catalog.finish(common | _object_properties(name), counts)
        margin = _write_margin(folder / f"{name}_5arcs", schema, partitions, margin_rows)
        properties = {"obs_collection": name, "hats_primary_table_url": name}
        if margin.rows:
            margin.finish(common | _margin_properties(name))
            properties |= {"all_margins": f"{name}_5arcs", "default_margin": f"{name}_5arcs"}
        _write_properties(folder / "collection.properties", properties | common)
        shutil.rmtree(scratch, ignore_errors=True)


def _count(rows: Rows) -> tuple[Pixels, Partitions | None]:
    """Return the stars of each pixel, and the partitions of the input if they hold all stars."""
    if not rows.partitions:
        return hats_partitions.count_stars(_indices(rows)), None
    orders, pixels = (np.array(side, np.int64) for side in zip(*rows.partitions, strict=True))
    given = Partitions(orders, pixels)
    stars = np.zeros(len(given) + 1, np.int64)  # the last place is for those in none

    def counted() -> Iterator[Pixels]:
        for index in _indices(rows):
            np.add.at(stars, given.partition_of(index), 1)
            yield index

    counts = hats_partitions.count_stars(counted())
    if stars[-1]:
        return counts, None  # positions of another table
    held = stars[:-1] > 0
    return counts, Partitions(orders[held], pixels[held])


def _indices(rows: Rows) -> Iterator[Pixels]:
    """Yield the stars' HEALPix indices. Raises JobError where a star has none."""
    placed, unplaced = 0, 0
    for batch in rows.batches([KEY]):
        index = batch.column(KEY).to_numpy()
        known = index >= 0
        placed, unplaced = placed + int(known.sum()), unplaced + int((~known).sum())
        yield index[known]
    if unplaced or not placed:
        raise JobError(
            "a HATS catalog needs the stars' positions",
            wanted="a run with ra and dec (--gaia-source)",
            found=f"{placed:,} stars with a position, {unplaced:,} without",
            advice=f'leave those out: --where "{KEY} >= 0"' if placed else None,
        )


def _row_source(rows: Rows, partitions: Partitions, scratch: Path) -> RowGroups:
    """Return the catalog's parts if they are nearly in the order of the sky, else sorted files."""
    names = rows.contract.names
    row_groups = range_reader.list_row_groups(rows.parts, KEY, names, rows.condition)
    if range_reader.needs_no_sorting(row_groups, partitions.low, partitions.high):
        return row_groups
    sorter = Sorter(scratch / "catalog", KEY)
    for batch in rows.batches():
        sorter.add(pa.Table.from_batches([batch]))
    return sorter.row_groups(names)


def _in_order(table: pa.Table) -> pa.Table:
    """Return the rows in an order that does not depend on the order they were read in."""
    names = (KEY, "source_id", "ra", "dec")
    return table.sort_by([(name, "ascending") for name in names if name in table.column_names])


def _margin_stars(table: pa.Table, partitions: Partitions, number: int) -> pa.Table:
    """Return the stars of a partition that are in other margins, with the column MARGIN_OF."""
    stars, others = partitions.margin_stars(table.column(KEY).to_numpy(), number)
    return table.take(pa.array(stars)).append_column(MARGIN_OF, pa.array(others, pa.int64()))


def _write_margin(
    folder: Path, schema: pa.Schema, partitions: Partitions, margin_rows: Sorter
) -> _Dataset:
    margin = _Dataset(folder, schema)
    if margin_rows.rows:
        source = margin_rows.row_groups(schema.names)
        for number in range(len(partitions)):
            table = source.read_range(number, number)
            if table.num_rows:
                margin.write(partitions, number, _in_order(table))
    return margin


class _Dataset:
    """One catalog of a collection: its partitions, then the files that describe them."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.folder = folder
        self.schema = schema
        self.rows = 0
        self._max_rows = 0
        self._bytes = 0
        self._orders: list[int] = []
        self._pixels: list[int] = []
        self._footers: list[pq.FileMetaData] = []

    def write(self, partitions: Partitions, number: int, table: pa.Table) -> None:
        """Write the file of a partition."""
        path = self.folder / partitions.path(number)
        with atomic.AtomicFile(path) as file:
            with parquet_writer(file, self.schema, store_schema=True) as parquet:
                table = pa.Table.from_arrays(table.columns, schema=self.schema)
                parquet.write_table(table.combine_chunks(), row_group_size=ROW_GROUP)
        footer = pq.read_metadata(path)
        footer.set_file_path(path.relative_to(self.folder / "dataset").as_posix())
        self._footers.append(footer)
        self.rows += table.num_rows
        self._max_rows = max(self._max_rows, table.num_rows)
        self._bytes += file.bytes
        self._orders.append(int(partitions.orders[number]))
        self._pixels.append(int(partitions.pixels[number]))

    def finish(self, properties: Mapping[str, str], counts: Pixels | None = None) -> None:
        """Write index, properties and, from ``counts`` of the stars, the sky map."""
        dataset = self.folder / "dataset"
        pq.write_metadata(self.schema, dataset / "_metadata", metadata_collector=self._footers)
        pq.write_metadata(self.schema, dataset / "_common_metadata")
        lines = ["Norder,Npix"]
        lines += [f"{o},{p}" for o, p in zip(self._orders, self._pixels, strict=True)]
        atomic.write_atomic(self.folder / "partition_info.csv", "\n".join([*lines, ""]).encode())
        if counts is not None:
            for name in ("point_map.fits", "skymap.fits"):
                atomic.write_atomic(self.folder / name, _sky_map(counts))
        partitions = Partitions(np.array(self._orders), np.array(self._pixels))
        content = dict(properties) | {
            "hats_nrows": str(self.rows),
            "hats_max_rows": str(self._max_rows),
            "hats_estsize": str(max(1, self._bytes >> 10)),
            "hats_order": str(max(self._orders)),
            "moc_sky_fraction": f"{partitions.sky_fraction:.6g}",
        }
        for name in ("hats.properties", "properties"):
            _write_properties(self.folder / name, content)


def _common_properties(rows: Rows) -> dict[str, str]:
    """Return what every properties file states about the origin of the catalog."""
    facts = rows.metadata
    return {
        "hats_builder": facts["origin"],
        "hats_creation_date": facts["date"][:16] + "UTC",
        **VERSION,
        "obs_description": rows.contract.description,
        "bib_reference": facts["references"],
        "prov_progenitor": f"run {facts['run_hash']}, model {facts['model']} "
        f"{facts['model_hash']}, job {facts['job']} {facts['job_hash']}",
        **({"selection": facts["where"]} if "where" in facts else {}),
    }


def _object_properties(name: str) -> dict[str, str]:
    return {
        "obs_collection": name,
        "dataproduct_type": "object",
        "hats_col_ra": "ra",
        "hats_col_dec": "dec",
        "hats_col_healpix": KEY,
        "hats_col_healpix_order": str(hats_partitions.INDEX_ORDER),
        "hats_npix_suffix": ".parquet",
        "hats_skymap_order": str(hats_partitions.MAP_ORDER),
    }


def _margin_properties(name: str) -> dict[str, str]:
    return {
        "obs_collection": f"{name}_5arcs",
        "dataproduct_type": "margin",
        "hats_col_ra": "ra",
        "hats_col_dec": "dec",
        "hats_primary_table_url": name,
        "hats_margin_threshold": str(hats_partitions.MARGIN_ARCSEC),
        "hats_npix_suffix": ".parquet",
    }


def _write_properties(path: Path, content: Mapping[str, str]) -> None:
    """Write a Java properties file: ASCII, everything else escaped."""
    lines = ["#HATS", *(f"{name}={_escaped(text)}" for name, text in content.items()), ""]
    atomic.write_atomic(path, "\n".join(lines).encode("ascii"))


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    units = text.encode("utf-16-be")
    letters = (int.from_bytes(units[i : i + 2], "big") for i in range(0, len(units), 2))
    return "".join(chr(c) if 32 <= c < 127 else f"\\u{c:04x}" for c in letters)


def _sky_map(counts: Pixels) -> bytes:
    """Return a HEALPix map in FITS of the pixels that have stars."""
    import io

    from astropy.io import fits

    occupied = np.flatnonzero(counts)
    columns = [
        fits.Column("PIXEL", "K", array=occupied),
        fits.Column("VALUE", "K", array=counts[occupied]),
    ]
    table = fits.BinTableHDU.from_columns(columns)
    cards = {
        "PIXTYPE": "HEALPIX",
        "INDXSCHM": "EXPLICIT",
        "ORDERING": "NESTED",
        "COORDSYS": "C",
        "NSIDE": 1 << hats_partitions.MAP_ORDER,
        "OBS_NPIX": len(occupied),
    }
    table.header.update(cards)
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(file)
    return file.getvalue()


@contextmanager
def _new_folder(output: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a folder that gets its final name only when the block ends without an error."""
    exists = output.exists()
    if exists and not (overwrite and (output / "collection.properties").is_file()):
        raise CatalogprocError(
            "the folder exists already", where=output,
            advice="give another name; only a HATS collection can be replaced, by --overwrite",
        )  # fmt: skip
    with atomic.scratch_folder(output.parent, output.name) as scratch:
        folder = scratch / "collection"
        folder.mkdir()
        yield folder
        atomic.publish(folder, output, overwrite=overwrite)
