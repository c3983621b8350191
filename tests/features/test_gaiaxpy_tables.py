"""The shipped tables of GaiaXPy."""

from __future__ import annotations

import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from catalogproc.errors import CatalogprocError
from catalogproc.features import gaiaxpy_tables


def test_shipped_tables_equal_those_of_the_installed_gaiaxpy(tmp_path: Path) -> None:
    # Importing GaiaXPy switches off warnings and makes matplotlib use LaTeX, for good.
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore")
        gaiaxpy_tables.write_tables(tmp_path / "again.npz")
    shipped = gaiaxpy_tables.read_tables()
    again = gaiaxpy_tables.read_tables(tmp_path / "again.npz")
    assert shipped.keys() == again.keys()
    for name, values in shipped.items():
        np.testing.assert_allclose(values, again[name], rtol=1e-13, err_msg=name)


def test_missing_tables_are_refused_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(CatalogprocError, match=r"missing(.|\n)*nowhere\.npz(.|\n)*install"):
        gaiaxpy_tables.read_tables(tmp_path / "nowhere.npz")
