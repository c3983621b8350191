"""The selection function: every star counted, in the convention of gaiaunlimited."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.catalogs import finished_run
from typer.testing import CliRunner

from catalogproc.cli.main import app
from catalogproc.errors import CatalogprocError, JobError
from catalogproc.export.open_catalog import open_catalog
from catalogproc.export.selection import BINNING, export_selection, probability

LEVEL = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    finished_run(run, files=2, chunks=2, rows=400)
    return run


def test_every_star_is_counted_once(folder: Path, tmp_path: Path) -> None:
    """Against pandas, from the catalog's columns."""
    path = tmp_path / "selection.csv"
    found = export_selection(folder, path, "good_mass_age and m_h > -0.5", LEVEL)
    stars = open_catalog(folder).to_pandas()
    kept = stars["good_mass_age"] & (stars["m_h"] > -0.5)
    assert (found.stars, found.kept) == (len(stars), kept.sum())
    counted = pd.read_csv(path, comment="#")
    assert counted["n"].sum() + found.outside == len(stars)
    stars["healpix_"] = stars["source_id"].to_numpy() // 2 ** (35 + 2 * (12 - LEVEL))
    inside = np.ones(len(stars), dtype=bool)
    for name, (low, high, width) in BINNING.items():
        inside &= (stars[name] >= low) & (stars[name] < high)
        stars[f"{name}_"] = ((stars[name] - low) // width).astype("Int64")
    keys = ["healpix_", *(f"{name}_" for name in BINNING)]
    wanted = stars[inside].assign(n=1, k=kept[inside].astype(int)).groupby(keys)[["n", "k"]].sum()
    wanted = wanted.reset_index().astype(np.int64)
    pd.testing.assert_frame_equal(counted, wanted[counted.columns])


def test_the_first_line_is_the_binning_that_gaiaunlimited_compares(
    folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "selection.csv"
    export_selection(folder, path, "good_params", LEVEL)
    first, second, names, *_ = path.read_text().splitlines()
    stated = ast.literal_eval(first.strip("#"))
    assert stated == {"healpix": LEVEL} | {name: list(bins) for name, bins in BINNING.items()}
    assert second.endswith("kept: good_params")
    assert open_catalog(folder).identity.hash in second
    assert names.split(",") == ["healpix_", "phot_g_mean_mag_", "bp_rp_", "n", "k"]
    for low, high, width in BINNING.values():  # its bins are those of np.arange
        assert len(np.arange(low, high, width)) == round((high - low) / width)


def test_probabilities_are_the_mean_of_a_beta_distribution(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "selection.csv"
    export_selection(folder, path, "good_params", 0)
    found = probability(path)
    np.testing.assert_allclose(found["p"], (found["k"] + 1) / (found["n"] + 2))
    draws = np.random.default_rng(1).beta(
        found["k"] + 1, found["n"] - found["k"] + 1, (20_000, 1, len(found["n"]))
    )
    np.testing.assert_allclose(found["e_p"], draws.std(axis=0)[0], rtol=0.05)


def test_the_command(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "selection.csv"
    command = ["export", str(folder), "--selection", "--output", str(path), "--healpix", "1"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "kept: good_mass_age" in path.read_text()
    with pytest.raises(CatalogprocError, match="exists"):
        export_selection(folder, path, "good_mass_age", 1)
    with pytest.raises(JobError, match="no such level"):
        export_selection(folder, path, "good_mass_age", 7, overwrite=True)
