"""The main job as a user types it: real Gaia spectra in, a catalog out, every format alike."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest
from support.paths import ARCHIVE, CORRELATED, ROOT

from catalogproc.contract import load_contract
from catalogproc.flags import load_flags

pytestmark = pytest.mark.timeout(900)
"""Programs that are started, also where others use the machine."""

ASKED = ("teff", "logg", "m_h", "mass", "age")


def catalogproc(*words: str | Path, code: int = 0) -> str:
    command = [sys.executable, "-m", "catalogproc", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def catalog(folder: Path) -> pa.Table:
    table = ds.dataset(folder / "catalog").to_table()
    return table.sort_by("source_id")


def finite(table: pa.Table) -> bool:
    names = [*ASKED, *(f"e_{name}" for name in ASKED)]
    return all(np.isfinite(table[name].to_numpy()).all() for name in names)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make run` makes: the glob unquoted, so many words after --input."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    spectra = sorted((ROOT / "examples" / "gaia_xp").glob("*.parquet"))
    catalogproc("run", "--input", *spectra, "--job", "demo", "--output", folder)
    return folder


def test_every_real_spectrum_gets_an_answer_or_a_reason(demo: Path) -> None:
    summary = json.loads((demo / "summary.json").read_text())
    table = catalog(demo)
    load_contract("catalog").check(table.cast(load_contract("catalog").arrow_schema()))
    assert summary["rows_read"] == 1500
    assert summary["rows_written"] == table.num_rows == 1500 - summary["rows_rejected"]
    assert summary["rows_rejected"] == 0
    assert finite(table)
    assert "1,500 rows read" in catalogproc("verify", demo)


def test_the_same_command_again_does_nothing(demo: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (demo / "catalog").iterdir()}
    spectra = ROOT / "examples" / "gaia_xp" / "*.parquet"  # this time quoted
    said = catalogproc("run", "--input", spectra, "--job", "demo", "--output", demo)
    assert "nothing to do" in said
    assert before == {path: path.stat().st_mtime_ns for path in (demo / "catalog").iterdir()}


def test_a_folder_is_an_input_too_and_another_job_is_refused_by_field(demo: Path) -> None:
    folder = ROOT / "examples" / "gaia_xp"
    said = catalogproc("run", "--input", folder, "--output", demo, code=2)
    assert "job.chunk_rows: was 500, is 50000" in said


def test_real_photometry_and_parallaxes_change_what_they_should(tmp_path: Path) -> None:
    data = CORRELATED
    spectra = data / "xp_continuous_30.parquet"
    catalogproc("run", "--input", spectra, "--output", tmp_path / "alone")
    catalogproc(
        *("run", "--input", spectra, "--output", tmp_path / "with"),
        *("--gaia-source", data / "gaia_source_30.parquet"),
    )
    alone, both = catalog(tmp_path / "alone"), catalog(tmp_path / "with")
    assert alone.num_rows == both.num_rows == 30
    assert finite(alone)
    assert finite(both)
    assert alone["source_id"] == both["source_id"]
    synthetic = load_flags()["XP_PHOTOMETRY"].value
    assert pc.all(pc.equal(pc.bit_wise_and(alone["quality_flags"], synthetic), synthetic)).as_py()
    assert not pc.any(
        pc.equal(pc.bit_wise_and(both["quality_flags"], synthetic), synthetic)
    ).as_py()
    # Two routes to the same magnitude: Gaia's photometry and the spectrum's own.
    for name, limit in (("phot_g_mean_mag", 0.03), ("bp_rp", 0.03)):
        assert np.abs(alone[name].to_numpy() - both[name].to_numpy()).max() < limit
    assert np.isnan(alone["ra"].to_numpy()).all()
    assert np.isfinite(both["ra"].to_numpy()).all()
    assert pc.all(pc.greater(both["_healpix_29"], 0)).as_py()


def test_the_same_star_gives_the_same_numbers_from_every_format(tmp_path: Path) -> None:
    names = ["RAW.csv", "RAW.ecsv", "RAW.fits", "RAW.xml", "RAW_plain.xml"]
    files = [ARCHIVE / f"XP_CONTINUOUS_{name}" for name in names]
    catalogproc("run", "--input", *files, "--output", tmp_path)
    table = catalog(tmp_path)
    assert table.num_rows == 2 * len(files)
    assert finite(table)
    stars = table.group_by("source_id").aggregate(
        [(name, how) for name in (*ASKED, "phot_g_mean_mag") for how in ("min", "max")]
    )
    assert stars.num_rows == 2
    for name in (*ASKED, "phot_g_mean_mag"):
        low, high = (stars[f"{name}_{how}"].to_numpy() for how in ("min", "max"))
        # csv writes fewer digits of the errors than fits holds, never of the coefficients.
        assert np.allclose(low, high, rtol=2e-6, atol=0), name


def test_a_missing_band_is_ordinary(tmp_path: Path) -> None:
    names = ("XP_CONTINUOUS_RAW_with_missing_BP.csv", "XP_CONTINUOUS_RAW_with_missing_BP.fits")
    for name in names:
        catalogproc("run", "--input", ARCHIVE / name, "--output", tmp_path / name)
    first, second = (json.loads((tmp_path / n / "summary.json").read_text()) for n in names)
    assert first["rows_read"] == second["rows_read"] == 3
    assert first["rejected_by_reason"] == second["rejected_by_reason"]
    assert catalog(tmp_path / names[0])["teff"] == catalog(tmp_path / names[1])["teff"]
