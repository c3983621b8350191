"""Figure 12 with canonical coefficients: nothing of the predicted band is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import real_stars
from support.bundles import tiny_bundle

from catalogproc.datasets.benchmark_stars import Benchmark
from catalogproc.datasets.test_sets import Simulated, read_benchmark, simulated
from catalogproc.errors import JobError
from catalogproc.evaluation.xgboost_baseline import Trees, TreeSettings
from catalogproc.features.one_band import OTHER
from catalogproc.network.predictor import Predictor
from catalogproc.paper.context import ExperimentContext
from catalogproc.paper.reconstruction import band_inpainting, inpainted
from catalogproc.simulation.simulator import Simulator
from catalogproc.spectra.inpaint import EDGES
from catalogproc.vocabulary import BANDS, load_vocabulary

VOCABULARY = replace(load_vocabulary(), basis="canonical")
N = 60


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(tiny_bundle(tmp_path_factory.mktemp("canonical") / "model", VOCABULARY))


def context(predictor: Predictor, stars: Benchmark) -> ExperimentContext:
    return ExperimentContext(predictor, stars, lambda: stars, TREES, N)


TREES = Trees(TreeSettings(trees=1, rate=0.3, depth=2, threads=1))


def real(folder: Path, moved: str = "") -> Benchmark:
    """Real stars with G magnitudes; one band may be that of other stars, and brighter."""
    folder.mkdir()
    table = real_stars.faint().slice(0, N)
    if moved:
        name = f"{moved}_coefficients"
        values = np.roll(1.3 * real_stars.stacked(table, name), 7, axis=0)
        at = table.column_names.index(name)
        table = table.set_column(at, name, pa.array(list(values), table[name].type))
    pq.write_table(table, folder / "xp_continuous.parquet")
    g = pa.table({"source_id": table["source_id"], "phot_g_mean_mag": np.full(N, 16.0)})
    pq.write_table(g, folder / "gaia_source.parquet")
    return read_benchmark(folder, VOCABULARY, truth=False)


@pytest.mark.parametrize("hidden", BANDS)
def test_changing_the_predicted_band_changes_no_prediction(
    predictor: Predictor, hidden: str, tmp_path: Path
) -> None:
    one, two = real(tmp_path / "a"), real(tmp_path / "b", hidden)
    found = [inpainted(context(predictor, stars), stars, hidden) for stars in (one, two)]
    edges = EDGES[hidden]
    for what in ("flux", "error"):
        flux, again = (getattr(spectra.within(*edges), what) for spectra in found)
        assert (flux > 0).any()
        np.testing.assert_array_equal(flux, again)
    at = VOCABULARY.coefficient_columns(OTHER[hidden])
    assert np.nanmax(np.abs(one.values[:, at] - two.values[:, at]) / one.errors[:, at]) > 10.0


def test_figure_12_hides_bands_by_their_operators(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stars, read = real(tmp_path / "a"), []
    predict = ExperimentContext.predicted_spectra
    monkeypatch.setattr(
        ExperimentContext, "predicted_spectra",
        lambda here, inputs, bands=BANDS: read.append((inputs, bands)) or predict(
            here, inputs, bands),
    )  # fmt: skip
    band_inpainting(context(predictor, stars))
    by_band = {bands[0]: inputs for inputs, bands in read if len(bands) == 1}
    for band in BANDS:
        shown = by_band[band]
        at = VOCABULARY.coefficient_columns(OTHER[band])
        assert shown.present.any(axis=0).sum() == shown.present[:, at].any(axis=0).sum()
        rows = np.isfinite(stars.values[:, VOCABULARY.columns(("bp0", "rp0"))]).all(axis=1)
        wanted = stars.one_band[band].values[rows][:, at]
        np.testing.assert_array_equal(shown.values[:, at], wanted)


@pytest.mark.parametrize("hidden", BANDS)
def test_simulated_stars_hide_a_band_before_they_are_projected(hidden: str) -> None:
    stars = Simulator().draw(20, 4)
    values, errors = stars.tokens(VOCABULARY, hidden=hidden)
    both, n = stars.columns["coefficients"].clone(), stars.n_bp_coefficients
    both[:, slice(0, n) if hidden == "bp" else slice(n, None)] *= 1.5
    moved = replace(stars, columns=dict(stars.columns) | {"coefficients": both})
    for found, again in zip((values, errors), moved.tokens(VOCABULARY, hidden=hidden), strict=True):
        np.testing.assert_array_equal(found, again)
    drawn = simulated(Simulated(20, 4), VOCABULARY)
    at = VOCABULARY.coefficient_columns(OTHER[hidden])
    np.testing.assert_array_equal(drawn.without_band(hidden).values[:, at], values[:, at])
    labels = drawn.without_band(hidden).present[:, VOCABULARY.columns(("teff", "logg"))]
    assert not labels.any()


def test_stars_without_coefficients_of_one_band_are_refused() -> None:
    drawn = replace(simulated(Simulated(5, 4), VOCABULARY), one_band={})
    with pytest.raises(JobError, match="one band alone are not known"):
        drawn.without_band("bp")
    archive = simulated(Simulated(5, 4), load_vocabulary())
    shown = archive.without_band("bp")
    at = archive.vocabulary.coefficient_columns("rp")
    np.testing.assert_array_equal(shown.values[:, at], archive.values[:, at])
    assert not shown.present[:, archive.vocabulary.coefficient_columns("bp")].any()
