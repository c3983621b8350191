"""A run over a HATS catalog keeps its partitions: in its chunks, and in the exported catalog."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy_healpix import lonlat_to_healpix
from support.bundles import tiny_bundle
from support.xp_files import real

from catalogproc.cluster.plan import make_plan
from catalogproc.cluster.spec import RunSpec
from catalogproc.export import hats
from catalogproc.export.reader import open_rows
from catalogproc.inference.engine import Engine
from catalogproc.inference.process_chunk import process_chunk
from catalogproc.readers.hats import disjoint_partitions
from catalogproc.rundir.manifest import open_run

ORDER = 4
JOB = "kind = 'run'\ndescription = 'hats'\nchunk_rows = 50\npropagation = 'none'\n"


def write_input(folder: Path) -> dict[int, int]:
    """Write real spectra at made-up places in partitions; return the stars of each."""
    table = real(300)
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(10, 30, 300), rng.uniform(-10, 10, 300)
    pixels = lonlat_to_healpix(ra * u.deg, dec * u.deg, 1 << ORDER, order="nested")
    table = table.append_column("ra", pa.array(ra)).append_column("dec", pa.array(dec))
    (folder / "hats.properties").parent.mkdir(parents=True)
    (folder / "hats.properties").write_text("#HATS\nobs_collection=xp\n")
    counts = {}
    for pixel in np.unique(pixels):
        path = folder / f"dataset/Norder={ORDER}/Dir=0/Npix={pixel}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = table.filter(pa.array(pixels == pixel))
        pq.write_table(part, path)
        counts[int(pixel)] = len(part)
    return counts


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, int]]:
    folder = tmp_path_factory.mktemp("hats-in")
    counts = write_input(folder / "xp")
    (folder / "job.toml").write_text(JOB)
    bundle = tiny_bundle(folder / "bundle").path
    plan = make_plan(RunSpec(folder / "xp", folder / "run", (), bundle, folder / "job.toml"))
    assert sorted(chunk.rows or 0 for chunk in plan.chunks) == sorted(counts.values())
    open_run(plan.output, plan.identity)
    engine = Engine(plan.bundle, plan.job, run_id=plan.identity.run_id)
    for chunk in plan.chunks:
        process_chunk(engine, chunk, None, plan.output)
    return plan.output, counts


def test_the_catalog_has_the_partitions_of_the_input(
    made: tuple[Path, dict[int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, counts = made
    folders: list[str] = []
    sorter = hats.Sorter

    def watched(folder: Path, key: str) -> hats.Sorter:
        folders.append(folder.name)
        return sorter(folder, key)

    monkeypatch.setattr(hats, "Sorter", watched)
    hats.write_hats(open_rows(run), tmp_path / "out", False)
    assert folders == ["margin"]  # the catalog itself is not sorted anew
    files = (tmp_path / "out" / "out" / "dataset").rglob("Npix=*.parquet")
    found = {int(path.stem.split("=")[1]): pq.read_metadata(path).num_rows for path in files}
    assert found == counts
    lines = (tmp_path / "out" / "out" / "partition_info.csv").read_text().split()[1:]
    assert {line.split(",")[0] for line in lines} == {str(ORDER)}


def test_a_selection_leaves_out_empty_partitions(
    made: tuple[Path, dict[int, int]], tmp_path: Path
) -> None:
    run, _ = made
    rows = open_rows(run, where="dec > 5")
    hats.write_hats(rows, tmp_path / "out", False)
    files = (tmp_path / "out" / "out" / "dataset").rglob("Npix=*.parquet")
    sizes = [pq.read_metadata(path).num_rows for path in files]
    assert sum(sizes) == rows.count
    assert min(sizes) > 0


def test_partitions_that_overlap_are_not_kept() -> None:
    def path(order: int, pixel: int) -> str:
        return f"s3://sky/xp/dataset/Norder={order}/Dir=0/Npix={pixel}.parquet"

    assert disjoint_partitions([path(1, 3), path(2, 5)]) == [(2, 5), (1, 3)]
    assert disjoint_partitions([path(1, 1), path(2, 5)]) == []
    assert disjoint_partitions([path(1, 1), "xp.parquet"]) == []
    assert disjoint_partitions([]) == []
