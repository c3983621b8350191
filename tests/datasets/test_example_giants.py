"""The giants in examples/: real, of the test fold, and consistent from spectrum to labels."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.paths import ROOT
from support.real_dataset import write_real_dataset

from catalogproc.contract import load_contract
from catalogproc.datasets.example_giants import AUXILIARY, LABELS, SPECTRA, STARS, write_example
from catalogproc.errors import InputError
from catalogproc.features.canonical import BASIS_ID
from catalogproc.features.photometry import synthetic_photometry
from catalogproc.features.spectra import matrix
from catalogproc.release import load_release

GIANTS = ROOT / "examples" / "giants"
FILES = (SPECTRA, AUXILIARY, LABELS)


def test_the_giants_are_of_the_test_fold_and_the_tables_of_the_same_stars() -> None:
    tables = [pq.read_table(GIANTS / name) for name in FILES]
    ids = tables[0]["source_id"].to_pylist()
    assert len(set(ids)) == len(ids) == STARS
    assert all(table["source_id"].to_pylist() == ids for table in tables)
    folds = [int(sha256(str(star).encode()).hexdigest()[:8], 16) % 5 for star in ids]
    assert set(folds) == {0}
    assert set(tables[0]["basis_id"].to_pylist()) == {BASIS_ID}
    logg, teff = (tables[2][name].to_numpy() for name in ("logg", "teff"))
    assert (logg < 3.5).all()
    assert (teff < 5800).all()
    assert sum((GIANTS / name).stat().st_size for name in FILES) < 5e6
    for table in tables:
        assert b"APOGEE DR17" in table.schema.metadata[b"credit"]


def test_the_spectra_are_of_the_brightness_and_colour_that_gaia_published() -> None:
    """Flux of the canonical coefficients through the passbands, and the photometry beside."""
    stars, photometry = (pq.read_table(GIANTS / name) for name in (SPECTRA, AUXILIARY))
    bp, rp = (matrix(stars[f"{band}_coefficients"], 55).astype(float) for band in ("bp", "rp"))
    made = synthetic_photometry(bp, rp, load_release())
    g, b, r = (
        photometry[f"phot_{band}_mean_mag"].to_numpy() for band in ("g", "bp", "rp")
    )  # fmt: skip
    assert np.median(np.abs(made.g - g)) < 0.01
    assert np.percentile(np.abs(made.bp - made.rp - (b - r)), 95) < 0.05


def test_parallaxes_are_given_where_gaia_s_are_known_alone() -> None:
    table = pq.read_table(GIANTS / AUXILIARY)
    parallax, error = (table[name] for name in ("parallax", "parallax_error"))
    assert 0 < len(parallax) - parallax.null_count < 0.1 * STARS
    assert parallax.is_null().equals(error.is_null())


def test_the_same_dataset_gives_the_same_bytes(tmp_path: Path) -> None:
    data = write_real_dataset(tmp_path / "data", 120)
    first, second = (write_example(data, tmp_path / name, 20) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    spectra = pq.read_table(first[0])
    assert spectra.schema.names[:2] == ["source_id", "basis_id"]
    assert set(spectra.schema.names) <= set(load_contract("xp_continuous").names)
    with pytest.raises(InputError, match="too few giants"):
        write_example(data, tmp_path / "c", 100)
