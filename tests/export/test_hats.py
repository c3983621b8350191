"""HATS: every star once in its pixel, complete margins, opened by LSDB; and HATS as input.

LSDB and hats are not required by catalogproc; their tests are skipped without them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord, angular_separation
from astropy.io import fits
from astropy_healpix import HEALPix
from support.catalogs import catalog_table, finished_run
from support.paths import ROOT

from catalogproc.errors import CatalogprocError, JobError
from catalogproc.export import hats, range_reader
from catalogproc.export.export import export_catalog
from catalogproc.export.hats_partitions import Partitions, choose_partitions
from catalogproc.export.reader import open_rows
from catalogproc.features.astrometry import healpix
from catalogproc.readers.chunks import cut, expand
from catalogproc.readers.xp import read_spectra

MAX_ROWS = 150


def placed(rows: int, seed: int) -> pa.Table:
    """Return a catalog with pixels that agree with the positions, half of the stars in pairs.

    The two of a pair are 1 to 8 arcsec apart, so that some lie to both sides of a border.
    """
    table = catalog_table(rows, seed)
    rng = np.random.default_rng(seed)
    ra, dec = (table[name].to_numpy().copy() for name in ("ra", "dec"))
    half = rows // 2
    ra[:half] %= 90.0
    dec[:half] = np.abs(dec[:half])
    # On meridians and parallels where borders of all orders lie, and at the pole.
    ra[:half:4] = rng.integers(0, 3, len(ra[:half:4])) * 45.0
    dec[1:half:4] = rng.choice([0.0, 41.81], len(dec[1:half:4]))
    dec[:3] = 89.999
    here = SkyCoord(ra[:half], dec[:half], unit="deg")
    there = here.directional_offset_by(
        rng.uniform(0, 360, half) * _degree(), rng.uniform(1, 8, half) / 3600 * _degree()
    )
    ra[half : 2 * half], dec[half : 2 * half] = there.ra.deg, there.dec.deg
    for name, values in (("ra", ra), ("dec", dec), ("_healpix_29", healpix(ra, dec))):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(values))
    return table


def _degree() -> object:
    from astropy.units import deg

    return deg


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    finished_run(folder, files=2, chunks=2, tables=[placed(250, seed) for seed in range(4)])
    return folder


@pytest.fixture(scope="module")
def rows(run: Path) -> pa.Table:
    return pa.Table.from_batches(open_rows(run).batches())


@pytest.fixture(scope="module")
def catalog(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hats") / "giants"
    hats.write_hats(open_rows(run), folder, False, max_rows=MAX_ROWS)
    return folder


def arcsec(ra: float, dec: float, others_ra: np.ndarray, others_dec: np.ndarray) -> np.ndarray:
    """Return the separations from one position (radians) to others in arcsec."""
    return np.degrees(angular_separation(ra, dec, others_ra, others_dec)) * 3600


def pixel_files(folder: Path) -> dict[tuple[int, int], Path]:
    found = {}
    for path in (folder / "dataset").rglob("Npix=*.parquet"):
        order, pixel = path.parts[-3].split("=")[1], path.stem.split("=")[1]
        found[int(order), int(pixel)] = path
    return found


def properties(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


# ---------------------------------------------------------------- content of the pixels


def test_every_star_is_in_its_pixel_once_and_bit_identical(catalog: Path, rows: pa.Table) -> None:
    files = pixel_files(catalog / "giants")
    tables = []
    for (order, pixel), path in files.items():
        table = pq.ParquetFile(path).read()
        sky = HEALPix(1 << order, order="nested", frame="icrs")
        where = SkyCoord(table["ra"].to_numpy(), table["dec"].to_numpy(), unit="deg")
        assert set(sky.skycoord_to_healpix(where)) == {pixel}
        index = table["_healpix_29"].to_numpy()
        assert (np.diff(index) >= 0).all()
        assert 0 < table.num_rows <= MAX_ROWS
        tables.append(table)
    found = pa.concat_tables(tables).sort_by("source_id")
    wanted = rows.sort_by("source_id")
    assert found.column_names == wanted.column_names
    for name in wanted.column_names:
        one, other = (t[name].combine_chunks().to_numpy(zero_copy_only=False)
                      for t in (found, wanted))  # fmt: skip
        assert list(one) == list(other) or one.tobytes() == other.tobytes(), name
    # As large as may be: a pixel's parent would hold too many.
    for order, pixel in files:
        siblings = rows["_healpix_29"].to_numpy() >> 2 * (30 - order) == pixel >> 2
        assert order == 0 or siblings.sum() > MAX_ROWS


def test_rows_of_a_partition_are_in_order_of_the_sky_then_of_source_id(tmp_path: Path) -> None:
    """Also where stars share a pixel of order 29, whatever their order in the input."""
    table = placed(200, 7)
    for name in ("_healpix_29", "ra", "dec"):  # groups of ten stars at the same position
        place = table.schema.get_field_index(name)
        values = np.repeat(table[name].to_numpy()[::10], 10)
        table = table.set_column(place, table.schema.field(name), pa.array(values))
    shuffled = table.take(pa.array(np.random.default_rng(3).permutation(200)))
    finished_run(tmp_path / "run", files=1, chunks=1, tables=[shuffled])
    hats.write_hats(open_rows(tmp_path / "run"), tmp_path / "x", False, max_rows=60)
    files = pixel_files(tmp_path / "x" / "x")
    assert len(files) > 3
    for path in files.values():
        found = pq.ParquetFile(path).read()
        index, ids = found["_healpix_29"].to_numpy(), found["source_id"].to_numpy()
        np.testing.assert_array_equal(np.lexsort((ids, index)), np.arange(len(ids)))


def test_margins_hold_every_star_within_five_arcsec_of_a_partition(
    catalog: Path, rows: pa.Table
) -> None:
    """By brute force: of each close pair across a border, each is in the other's margin."""
    files, margin = pixel_files(catalog / "giants"), pixel_files(catalog / "giants_5arcs")
    home = {}
    for place, path in files.items():
        for star in pq.ParquetFile(path).read(["source_id"])["source_id"].to_pylist():
            home[star] = place
    beside = {
        place: set(pq.ParquetFile(path).read(["source_id"])["source_id"].to_pylist())
        for place, path in margin.items()
    }
    stars = rows["source_id"].to_pylist()
    ra, dec = (np.radians(rows[name].to_numpy()) for name in ("ra", "dec"))
    crossing = 0
    for star in range(len(stars)):
        apart = arcsec(ra[star], dec[star], ra, dec)
        for other in np.flatnonzero(apart < 5.0):
            mine, its = home[stars[star]], home[stars[other]]
            if mine != its:
                crossing += 1
                assert stars[star] in beside[its]
    assert crossing > 40  # otherwise this test shows nothing
    for place, held in beside.items():
        assert not any(home[star] == place for star in held)
    assert sum(map(len, beside.values())) < len(stars) / 2


def test_properties_and_index_agree_with_the_files(catalog: Path, rows: pa.Table) -> None:
    collection = properties(catalog / "collection.properties")
    assert collection["hats_primary_table_url"] == "giants"
    assert collection["default_margin"] == collection["all_margins"] == "giants_5arcs"
    for name in ("giants", "giants_5arcs"):
        folder = catalog / name
        output = properties(folder / "hats.properties")
        files = pixel_files(folder)
        sizes = [pq.read_metadata(path).num_rows for path in files.values()]
        assert output["hats_nrows"] == str(sum(sizes))
        assert output["hats_max_rows"] == str(max(sizes))
        assert output["hats_order"] == str(max(order for order, _ in files))
        assert (folder / "properties").read_bytes() == (folder / "hats.properties").read_bytes()
        listed = (folder / "partition_info.csv").read_text().splitlines()
        assert listed[0] == "Norder,Npix"
        assert {tuple(map(int, line.split(","))) for line in listed[1:]} == set(files)
        footers = pq.read_metadata(folder / "dataset" / "_metadata")
        assert footers.num_rows == sum(sizes)
        assert footers.row_group(0).column(0).file_path in {
            path.relative_to(folder / "dataset").as_posix() for path in files.values()
        }
        schema = pq.read_schema(folder / "dataset" / "_common_metadata")
        assert schema.names == rows.column_names
        assert b"IVOA.VOTable-Parquet.content" in schema.metadata
        assert schema.field("mass").metadata[b"unit"] == b"solMass"
    assert properties(catalog / "giants" / "hats.properties")["hats_nrows"] == "1000"


def test_the_sky_map_counts_the_stars(catalog: Path, rows: pa.Table) -> None:
    with fits.open(catalog / "giants" / "skymap.fits") as file:
        header, data = file[1].header, file[1].data
        pixels, stars = np.array(data["PIXEL"]), np.array(data["VALUE"])
    order = int(np.log2(header["NSIDE"]))
    where = SkyCoord(rows["ra"].to_numpy(), rows["dec"].to_numpy(), unit="deg")
    sky = HEALPix(header["NSIDE"], order="nested", frame="icrs")
    wanted, counts = np.unique(sky.skycoord_to_healpix(where), return_counts=True)
    assert order == 8
    np.testing.assert_array_equal(pixels, wanted)
    np.testing.assert_array_equal(stars, counts)


def test_sorting_first_gives_the_same_bytes(
    run: Path, catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts in the order of the sky are read in place, others are sorted on the disk first."""
    monkeypatch.setattr(range_reader, "MIN_ROWS_TO_SORT", 0)
    monkeypatch.setattr(range_reader, "MAX_READS", 0)
    monkeypatch.setattr(range_reader, "ROWS_PER_SORT", 400)
    monkeypatch.setattr(range_reader, "ROWS_PER_GROUP", 40)
    hats.write_hats(open_rows(run), tmp_path / "giants", False, max_rows=MAX_ROWS)
    for path in sorted(catalog.rglob("*")):
        other = tmp_path / path.relative_to(catalog.parent)
        assert path.is_dir() == other.is_dir()
        if path.is_file():
            assert path.read_bytes() == other.read_bytes(), path
    assert len(list(tmp_path.rglob("*"))) == len(list(catalog.parent.rglob("*")))


def test_only_parts_out_of_order_are_sorted_first() -> None:
    parts = Partitions(np.full(12, 0), np.arange(12))
    width = 1 << 58
    in_order = range_reader.RowGroups(
        "k", (), None, pa.schema([]), (Path("x"),) * 24, tuple(range(24)),
        low=np.arange(24) * width // 2, high=np.arange(1, 25) * width // 2 - 1,
        rows=np.full(24, 1 << 20),
    )  # fmt: skip
    assert in_order.rows_to_read(parts.low, parts.high) == 24 << 20
    assert range_reader.needs_no_sorting(in_order, parts.low, parts.high)
    anywhere = range_reader.RowGroups(
        "k", (), None, pa.schema([]), (Path("x"),) * 24, tuple(range(24)),
        low=np.zeros(24, np.int64), high=np.full(24, 12 * width - 1), rows=np.full(24, 1 << 20),
    )  # fmt: skip
    assert anywhere.rows_to_read(parts.low, parts.high) == 12 * 24 << 20
    assert not range_reader.needs_no_sorting(anywhere, parts.low, parts.high)


def test_a_pixel_with_exactly_the_limit_of_stars_is_not_split() -> None:
    counts = np.zeros(12 << 16, np.int64)
    counts[[1, 2]] = 5, 5  # base pixel 0: ten stars
    counts[[1 << 16, 2 << 16]] = 11, 1
    parts = choose_partitions(counts, 10)
    orders = dict(zip((parts.low >> 58).tolist(), parts.orders.tolist(), strict=True))
    assert orders == {0: 0, 1: 8, 2: 0}


def test_both_ends_of_a_partition_belong_to_it() -> None:
    parts = Partitions(np.array([1, 0, 2]), np.array([2, 3, 100]))
    for number in range(3):
        first = int(parts.pixels[number]) << 2 * (29 - int(parts.orders[number]))
        last = first + (1 << 2 * (29 - int(parts.orders[number]))) - 1
        ends = np.array([first - 1, first, last, last + 1])
        assert parts.partition_of(ends).tolist() == [-1, number, number, -1]


def test_partitions_cover_all_stars_once_and_only_full_pixels_are_split() -> None:
    rng = np.random.default_rng(0)
    counts = np.zeros(12 << 16, np.int64)
    np.add.at(counts, (rng.beta(0.3, 3, 20_000) * len(counts)).astype(int), 1)
    counts[77] = 5_000  # more than may be, in a pixel of the highest order
    parts = choose_partitions(counts, 1_000)
    assert (parts.low[1:] > parts.high[:-1]).all()
    index = np.arange(len(counts), dtype=np.int64) << 2 * 21
    home = parts.partition_of(index)
    assert (home[counts > 0] >= 0).all()
    held = np.bincount(home[home >= 0], counts[home >= 0].astype(float), minlength=len(parts))
    assert (held > 0).all()
    assert ((held <= 1_000) | (parts.orders == 8)).all()
    assert held.sum() == counts.sum()


def test_memory_is_that_of_a_partition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tracemalloc

    from catalogproc.export import reader as module

    monkeypatch.setattr(module, "BATCH", 500)
    monkeypatch.setattr(range_reader, "ROWS_PER_SORT", 1_000)
    monkeypatch.setattr(range_reader, "MIN_ROWS_TO_SORT", 0)
    names = [*hats.POSITION, "source_id", "teff", "logg", "m_h", "mass", "age", "run_id"]
    peaks = []
    for chunks in (2, 12):
        folder = tmp_path / f"{chunks}"
        tables = [placed(1_000, seed) for seed in range(chunks)]
        finished_run(folder, files=1, chunks=chunks, rejected=0, tables=tables)
        tracemalloc.start()
        before = pa.total_allocated_bytes()
        hats.write_hats(open_rows(folder, names), folder / "out", False, max_rows=1_000)
        peaks.append(tracemalloc.get_traced_memory()[1] + pa.total_allocated_bytes() - before)
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


# ---------------------------------------------------------------- selections and refusals


def test_a_subset_keeps_the_columns_of_the_position(
    run: Path, rows: pa.Table, tmp_path: Path
) -> None:
    written = export_catalog(
        run, "hats", tmp_path / "x", columns=["source_id", "mass"], where="good_mass_age"
    )
    good = rows.filter(rows["good_mass_age"])
    assert written == good.num_rows > 0
    for path in pixel_files(tmp_path / "x" / "x").values():
        names = pq.ParquetFile(path).schema_arrow.names
        assert names == ["source_id", "mass", "_healpix_29", "ra", "dec"]
    output = properties(tmp_path / "x" / "x" / "hats.properties")
    assert output["selection"] == "good_mass_age"
    assert output["hats_nrows"] == str(written)


def test_stars_without_positions_are_refused_and_never_dropped(
    tmp_path: Path,
) -> None:
    table = placed(40, 1)
    place = table.schema.get_field_index("_healpix_29")
    none = table.set_column(place, table.schema.field(place), pa.array(np.full(40, -1)))
    finished_run(tmp_path / "none", files=1, chunks=1, tables=[none])
    with pytest.raises(JobError, match="0 stars with a position, 40 without"):
        export_catalog(tmp_path / "none", "hats", tmp_path / "out")
    index = table["_healpix_29"].to_numpy().copy()
    index[:3] = -1
    some = table.set_column(place, table.schema.field(place), pa.array(index))
    finished_run(tmp_path / "some", files=1, chunks=1, tables=[some])
    with pytest.raises(JobError, match='--where "_healpix_29 >= 0"'):
        export_catalog(tmp_path / "some", "hats", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert (
        export_catalog(tmp_path / "some", "hats", tmp_path / "out", where="_healpix_29 >= 0") == 37
    )


def test_only_a_hats_folder_is_replaced_and_only_with_overwrite(run: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(CatalogprocError, match="exists already"):
            export_catalog(run, "hats", mine, overwrite=overwrite)
    export_catalog(run, "hats", tmp_path / "x")
    with pytest.raises(CatalogprocError, match="exists already"):
        export_catalog(run, "hats", tmp_path / "x")
    export_catalog(run, "hats", tmp_path / "x", overwrite=True, where="good_params")
    assert properties(tmp_path / "x" / "x" / "hats.properties")["selection"] == "good_params"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "x"]
    assert (mine / "thesis.tex").read_text() == "mine"


def test_an_error_while_writing_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hats.pq, "write_metadata", fails)
    with pytest.raises(CatalogprocError, match="no space left"):
        export_catalog(run, "hats", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- HATS as input


def test_a_hats_catalog_of_spectra_is_an_input(tmp_path: Path) -> None:
    """Its partitions in the order of the sky; no margin, no partition_info.csv."""
    spectra = pq.read_table(next((ROOT / "examples" / "gaia_xp").glob("*.parquet")))
    folder = tmp_path / "xp"
    for order, pixel, first in ((1, 20, 0), (0, 3, 100), (0, 11, 200)):
        path = folder / "xp" / "dataset" / f"Norder={order}" / "Dir=0" / f"Npix={pixel}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(spectra.slice(first, 100), path)
    margin = folder / "xp_5arcs" / "dataset" / "Norder=0" / "Dir=0" / "Npix=3.parquet"
    margin.parent.mkdir(parents=True)
    pq.write_table(spectra.slice(100, 5), margin)
    pq.write_table(spectra.slice(0, 0), folder / "xp" / "dataset" / "_metadata")
    (folder / "collection.properties").write_text("#HATS\nhats_primary_table_url=xp\n")
    (folder / "xp" / "hats.properties").write_text("obs_collection=xp\n")
    (folder / "xp" / "partition_info.csv").write_text("Norder,Npix\n1,20\n0,3\n0,11\n")
    for word in (folder, folder / "xp"):
        files = expand([word])
        assert [path.stem for path in files] == ["Npix=3", "Npix=20", "Npix=11"]
        assert sum(chunk.rows or 0 for chunk in cut(files, 1000)) == 300
        found = [i for path in files for batch in read_spectra(path)
                 for i in batch.column("source_id").to_pylist()]  # fmt: skip
        ids = spectra["source_id"].to_pylist()
        assert found == [*ids[100:200], *ids[:100], *ids[200:300]]
    (folder / "collection.properties").write_text("#HATS\nhats_primary_table_url=gone\n")
    with pytest.raises(JobError, match="lacks its primary catalog"):
        expand([folder])


# ---------------------------------------------------------------- read by LSDB

needs_lsdb = pytest.mark.skipif(
    find_spec("lsdb") is None, reason="LSDB is not installed (pip install lsdb)"
)


def lsdb(script: str, *words: object) -> dict[str, object]:
    """Run a script that uses LSDB in a separate process, and return the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        capture_output=True, text=True, timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@needs_lsdb
def test_lsdb_opens_searches_and_crossmatches_it(catalog: Path, rows: pa.Table) -> None:
    output = lsdb(
        """
import json, sys, lsdb
from hats.io.validation import is_valid_catalog
path = sys.argv[1]
valid = is_valid_catalog(path, strict=True)
stars = lsdb.open_catalog(path, columns=["source_id", "ra", "dec", "mass", "good_params"])
cone = stars.cone_search(ra=45.0, dec=0.0, radius_arcsec=25 * 3600).compute()
pairs = stars.crossmatch(stars, radius_arcsec=4.5, n_neighbors=20).compute()
whole = stars.compute()
print(json.dumps({
    "valid": bool(valid), "margin": stars.margin is not None, "rows": len(stars),
    "ids": sorted(map(int, cone["source_id"])),
    "pairs": sorted(zip(map(int, pairs.iloc[:, 0]), map(int, pairs[
        [name for name in pairs.columns if name.startswith("source_id")][1]]))),
    "types": {name: str(kind) for name, kind in whole.dtypes.items()},
    "good": int(whole["good_params"].sum()),
}))
""",
        catalog,
    )
    assert output["valid"]
    assert output["margin"]
    assert output["rows"] == rows.num_rows
    assert output["good"] == sum(rows["good_params"].to_pylist())
    assert output["types"]["source_id"].startswith("int64")  # type: ignore[index]
    ra, dec = (np.radians(rows[name].to_numpy()) for name in ("ra", "dec"))
    ids = rows["source_id"].to_numpy()
    near = arcsec(np.radians(45.0), 0.0, ra, dec) < 25 * 3600
    assert output["ids"] == sorted(ids[near].tolist())
    wanted = [
        (int(ids[star]), int(other))
        for star in range(len(ids))
        for other in ids[arcsec(ra[star], dec[star], ra, dec) < 4.5]
    ]
    assert [tuple(pair) for pair in output["pairs"]] == sorted(wanted)  # type: ignore[union-attr]


@needs_lsdb
def test_hats_finds_the_same_pixels_for_the_positions(rows: pa.Table, tmp_path: Path) -> None:
    np.save(tmp_path / "sky.npy", np.array([rows["ra"].to_numpy(), rows["dec"].to_numpy()]))
    output = lsdb(
        """
import json, sys, numpy as np
from hats.pixel_math.spatial_index import compute_spatial_index
print(json.dumps({"index": compute_spatial_index(*np.load(sys.argv[1])).tolist()}))
""",
        tmp_path / "sky.npy",
    )
    assert output["index"] == rows["_healpix_29"].to_pylist()
