"""HATS: the catalog parted on the sky, as LSDB opens it.

The layout is that of HATS 1.0 (IVOA Note; github.com/astronomy-commons/hats), written with
Arrow and astropy-healpix alone:

    DIR/collection.properties
    DIR/NAME/hats.properties  partition_info.csv  point_map.fits  skymap.fits
    DIR/NAME/dataset/_metadata  _common_metadata  Norder=K/Dir=D/Npix=P.parquet
    DIR/NAME_5arcs/…            the margin cache: of each partition the stars just outside it

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
from catalogproc.export.reader import Rows
from catalogproc.io import atomic
from catalogproc.io.parquet_writer import ROW_GROUP, described_schema, parquet_writer

KEY = "_healpix_29"
POSITION = (KEY, "ra", "dec")
"""The columns that HATS needs."""
MOST_ROWS = 1_000_000
"""The threshold of stars a partition, as hats-import has it."""
VERSION = {"hats_release_date": "2025-08-22", "hats_version": "v1.0"}
"""Which HATS is written."""
TARGET = "_partition"


def write_hats(rows: Rows, output: Path, overwrite: bool, *, most: int = MOST_ROWS) -> None:
    """Write rows as a HATS collection: a folder, whole or not at all.

    Parameters
    ----------
    rows
        With the columns :data:`POSITION`.
    output
        The folder; its name becomes the catalog's.
    overwrite
        Whether a HATS collection of that name may be replaced.
    most
        Stars a partition at most; only pixels of the highest order may hold more.

    Raises
    ------
    JobError
        No star, or not every star, has a position.
    CatalogprocError
        The folder exists already, or cannot be written.
    """
    counts = hats_partitions.count_stars(_indices(rows))
    parts = hats_partitions.partitions(counts, most)
    name = re.sub(r"[^\w.-]", "_", output.resolve().name)
    with _whole_folder(output, overwrite) as folder:
        scratch = folder / "scratch"
        held = _held(rows, parts, scratch)
        schema = described_schema(rows.contract, rows.words, rows.widths)
        margins = range_reader.Sorter(scratch / "margin", TARGET)
        catalog = _Dataset(folder / name, schema)
        for number in range(len(parts)):
            table = held.between(int(parts.low[number]), int(parts.high[number]))
            table = table.sort_by([(column, "ascending") for column in _order(table)])
            catalog.write(parts, number, table)
            margins.add(_margin(table, parts, number))
            if rows.progress is not None:
                rows.progress(catalog.rows, rows.count, "")
        common = _common(rows)
        catalog.finish(common | _of_object(name), counts)
        margin = _write_margin(folder / f"{name}_5arcs", schema, parts, margins)
        stated = {"obs_collection": name, "hats_primary_table_url": name}
        if margin.rows:
            margin.finish(common | _of_margin(name))
            stated |= {"all_margins": f"{name}_5arcs", "default_margin": f"{name}_5arcs"}
        _write_properties(folder / "collection.properties", stated | common)
        shutil.rmtree(scratch, ignore_errors=True)


def _indices(rows: Rows) -> Iterator[Pixels]:
    """The stars' positions; refuses stars that have none."""
    found, lost = 0, 0
    for batch in rows.batches([KEY]):
        index = batch.column(KEY).to_numpy()
        known = index >= 0
        found, lost = found + int(known.sum()), lost + int((~known).sum())
        yield index[known]
    if lost or not found:
        raise JobError(
            "a HATS catalog needs the stars' positions",
            wanted="a run with ra and dec (--gaia-source)",
            found=f"{found:,} stars with a position, {lost:,} without",
            advice=f'leave those out: --where "{KEY} >= 0"' if found else None,
        )


def _held(rows: Rows, parts: Partitions, scratch: Path) -> range_reader.Pieces:
    """Where each partition's stars are taken from: the catalog's parts, or sorted runs."""
    names = rows.contract.names
    held = range_reader.pieces(rows.parts, KEY, names, rows.condition)
    if range_reader.is_cheap(held, parts.low, parts.high):
        return held
    sorter = range_reader.Sorter(scratch / "catalog", KEY)
    for batch in rows.batches():
        sorter.add(pa.Table.from_batches([batch]))
    return sorter.pieces(names)


def _order(table: pa.Table) -> list[str]:
    """What decides the order of rows, whatever order they were read in."""
    return [name for name in (KEY, "source_id", "ra", "dec") if name in table.column_names]


def _margin(table: pa.Table, parts: Partitions, number: int) -> pa.Table:
    """The stars of a partition that others need in their margins, with whose margin it is."""
    stars, targets = parts.near(table.column(KEY).to_numpy(), number)
    return table.take(pa.array(stars)).append_column(TARGET, pa.array(targets, pa.int64()))


def _write_margin(
    folder: Path, schema: pa.Schema, parts: Partitions, margins: range_reader.Sorter
) -> _Dataset:
    margin = _Dataset(folder, schema)
    if margins.rows:
        held = margins.pieces(schema.names)
        for number in range(len(parts)):
            table = held.between(number, number)
            if table.num_rows:
                table = table.sort_by([(column, "ascending") for column in _order(table)])
                margin.write(parts, number, table)
    return margin


class _Dataset:
    """One catalog of a collection: its partitions, then what describes them."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.folder = folder
        self.schema = schema
        self.rows = 0
        self._most = 0
        self._bytes = 0
        self._orders: list[int] = []
        self._pixels: list[int] = []
        self._footers: list[pq.FileMetaData] = []

    def write(self, parts: Partitions, number: int, table: pa.Table) -> None:
        """Write the file of a partition."""
        path = self.folder / parts.path(number)
        with atomic.AtomicFile(path) as file:
            with parquet_writer(file, self.schema, store_schema=True) as parquet:
                table = pa.Table.from_arrays(table.columns, schema=self.schema)
                parquet.write_table(table.combine_chunks(), row_group_size=ROW_GROUP)
        footer = pq.read_metadata(path)
        footer.set_file_path(path.relative_to(self.folder / "dataset").as_posix())
        self._footers.append(footer)
        self.rows += table.num_rows
        self._most = max(self._most, table.num_rows)
        self._bytes += file.bytes
        self._orders.append(int(parts.orders[number]))
        self._pixels.append(int(parts.pixels[number]))

    def finish(self, properties: Mapping[str, str], counts: Pixels | None = None) -> None:
        """Write what describes the partitions; the sky map where stars are counted."""
        dataset = self.folder / "dataset"
        pq.write_metadata(self.schema, dataset / "_metadata", metadata_collector=self._footers)
        pq.write_metadata(self.schema, dataset / "_common_metadata")
        lines = ["Norder,Npix"]
        lines += [f"{o},{p}" for o, p in zip(self._orders, self._pixels, strict=True)]
        atomic.write_atomic(self.folder / "partition_info.csv", "\n".join([*lines, ""]).encode())
        if counts is not None:
            for name in ("point_map.fits", "skymap.fits"):
                atomic.write_atomic(self.folder / name, _sky_map(counts))
        own = Partitions(np.array(self._orders), np.array(self._pixels))
        stated = dict(properties) | {
            "hats_nrows": str(self.rows),
            "hats_max_rows": str(self._most),
            "hats_estsize": str(max(1, self._bytes >> 10)),
            "hats_order": str(max(self._orders)),
            "moc_sky_fraction": f"{own.sky_fraction:.6g}",
        }
        for name in ("hats.properties", "properties"):
            _write_properties(self.folder / name, stated)


def _common(rows: Rows) -> dict[str, str]:
    """What every properties file says of where the catalog comes from."""
    words = rows.words
    return {
        "hats_builder": words["origin"],
        "hats_creation_date": words["date"][:16] + "UTC",
        **VERSION,
        "obs_description": rows.contract.description,
        "bib_reference": words["references"],
        "prov_progenitor": f"run {words['run_hash']}, model {words['model']} "
        f"{words['model_hash']}, job {words['job']} {words['job_hash']}",
        **({"selection": words["where"]} if "where" in words else {}),
    }


def _of_object(name: str) -> dict[str, str]:
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


def _of_margin(name: str) -> dict[str, str]:
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
    """A Java properties file: Latin letters, everything else escaped."""
    lines = ["#HATS", *(f"{name}={_escaped(text)}" for name, text in content.items()), ""]
    atomic.write_atomic(path, "\n".join(lines).encode("ascii"))


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    units = text.encode("utf-16-be")
    letters = (int.from_bytes(units[i : i + 2], "big") for i in range(0, len(units), 2))
    return "".join(chr(c) if 32 <= c < 127 else f"\\u{c:04x}" for c in letters)


def _sky_map(counts: Pixels) -> bytes:
    """Stars in each pixel that has some, as a HEALPix map in FITS."""
    import io

    from astropy.io import fits

    seen = np.flatnonzero(counts)
    columns = [
        fits.Column("PIXEL", "K", array=seen),
        fits.Column("VALUE", "K", array=counts[seen]),
    ]
    table = fits.BinTableHDU.from_columns(columns)
    stated = {
        "PIXTYPE": "HEALPIX",
        "INDXSCHM": "EXPLICIT",
        "ORDERING": "NESTED",
        "COORDSYS": "C",
        "NSIDE": 1 << hats_partitions.MAP_ORDER,
        "OBS_NPIX": len(seen),
    }
    table.header.update(stated)
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(file)
    return file.getvalue()


@contextmanager
def _whole_folder(output: Path, overwrite: bool) -> Iterator[Path]:
    """A folder to write into, that gets its name only when the block is left normally."""
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
