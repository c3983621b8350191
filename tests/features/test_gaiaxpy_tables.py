"""The shipped tables of GaiaXPy."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from catalogproc.errors import ReleaseError
from catalogproc.features import gaiaxpy_tables
from catalogproc.io.hashes import file_sha256
from catalogproc.release import Release, load_release

DR3 = load_release("dr3")


def own(folder: Path, file: str, sha256: str) -> Release:
    """DR3 with another file of tables, beside the release's own file."""
    text = f'name = "own"\nlike = "dr3"\n[design]\nfile = "{file}"\nsha256 = "{sha256}"\n'
    (folder / "own.toml").write_text(text)
    return load_release(folder / "own.toml")


def test_shipped_tables_equal_those_of_the_installed_gaiaxpy(tmp_path: Path) -> None:
    # Importing GaiaXPy switches off warnings and makes matplotlib use LaTeX, for good.
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore")
        gaiaxpy_tables.write_tables(tmp_path / "again.npz", DR3)
    shipped = gaiaxpy_tables.read_tables(DR3)
    made = own(tmp_path, "again.npz", file_sha256(tmp_path / "again.npz"))
    again = gaiaxpy_tables.read_tables(made)
    assert shipped.keys() == again.keys()
    for name, values in shipped.items():
        np.testing.assert_allclose(values, again[name], rtol=1e-13, err_msg=name)


def test_missing_or_other_tables_are_refused_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"missing(.|\n)*nowhere\.npz(.|\n)*copy the file"):
        gaiaxpy_tables.read_tables(own(tmp_path, "nowhere.npz", "0"))
    with pytest.raises(ReleaseError, match=r"not those that(.|\n)*sha256 0(.|\n)*gaiaxpy_tables"):
        gaiaxpy_tables.read_tables(own(tmp_path, "gaiaxpy_tables.npz", "0"))
    assert DR3.design is not None
    shorter = replace(DR3, bands=load_release("dr4").bands)
    with pytest.raises(ReleaseError, match="design_bp with 51 columns"):
        gaiaxpy_tables.read_tables(shorter)
