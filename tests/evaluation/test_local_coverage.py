"""Coverage in cells of the latent space: of real test giants, and of simulated ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.paths import ROOT

from catalogproc.datasets.holdout import Holdout, simulated_holdout
from catalogproc.evaluation.coverage import CELL, measure_coverage
from catalogproc.evaluation.latent_cells import latent_cells
from catalogproc.inference.engine import Engine
from catalogproc.job import Job
from catalogproc.network.bundle import Bundle, load_bundle
from catalogproc.network.predictor import Predictor
from catalogproc.readers.xp import read_spectra
from catalogproc.simulation.simulator import Simulator
from catalogproc.training.fit_calibration import fit_label_calibrations, fit_uncertainties

GIANTS = ROOT / "examples" / "giants"
LABELS = ("teff", "logg", "m_h", "alpha_m")


def test_of_real_giants_68_per_cent_are_within_one_sigma_in_each_cell() -> None:
    """2,000 giants with APOGEE's labels that took part in nothing, in five cells of 400."""
    bundle = load_bundle("default")
    engine = Engine(bundle, Job("test", labels=LABELS, inputs=("bprp", "jh", "jk")))
    spectra = pa.Table.from_batches(read_spectra(GIANTS / "xp_canonical.parquet"))
    known = pq.read_table(GIANTS / "apogee.parquet")
    assert spectra["source_id"].to_pylist() == known["source_id"].to_pylist()
    tokens = engine.features(spectra)
    catalog = engine.to_catalog(spectra.column("source_id"), tokens, engine.predict(tokens))
    cells = latent_cells(Predictor(bundle), tokens.network_inputs, 5)
    for label in LABELS:
        value, error = (catalog[name].to_numpy() for name in (label, f"e_{label}"))
        true, e_true = (known[name].to_numpy() for name in (label, f"e_{label}"))
        inside = np.abs(value - true) < np.hypot(error, e_true)
        good = np.isfinite(value - true)
        shares = [inside[good & (cells == cell)].mean() for cell in range(5)]
        # Eight points, and twice what 400 stars know of a share.
        assert np.abs(np.array(shares) - 0.6827).max() < 0.08 + 2 * 0.0233, label


def default_read(holdout: Holdout) -> Holdout:
    """The stars that are read as by the default job."""
    return Holdout(*(value[holdout.default_read] for value in vars(holdout).values()))


@pytest.fixture(scope="module")
def calibrated() -> tuple[Bundle, Bundle]:
    """The default network, calibrated on simulated giants: by place, and by columns alone."""
    bundle, simulator = load_bundle("default"), Simulator("cpu", corrected=True)
    plain = Predictor(replace(bundle, calibration=type(bundle.calibration)()))
    stars = simulated_holdout(simulator, bundle.vocabulary, 40_000, 20_261_128)
    found = fit_uncertainties(plain, stars)
    by_columns = replace(found, by_label=fit_label_calibrations(plain, stars))
    return replace(bundle, calibration=found), replace(bundle, calibration=by_columns)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_of_simulated_giants_it_holds_in_fifty_cells(calibrated: tuple[Bundle, Bundle]) -> None:
    """Between the 16th and the 84th percentile, in cells of at least 1,000 stars."""
    simulator, vocabulary = Simulator("cpu", corrected=True), calibrated[0].vocabulary
    stars = default_read(simulated_holdout(simulator, vocabulary, 78_000, 987))
    worst: list[dict[str, float]] = []
    for bundle in calibrated:
        found = measure_coverage(Predictor(bundle), stars, Job("test"))
        cells = [row for row in found.rows if row.bin.startswith(CELL)]
        assert {row.bin for row in cells} == {f"{CELL} {n} of 50" for n in range(1, 51)}
        assert min(row.stars for row in cells) >= 1_000
        worst.append({
            label: max(abs(1.0 - row.below_16 - row.above_84 - 0.6827)
                       for row in cells if row.label == label)
            for label in {row.label for row in cells}
        })  # fmt: skip
    local, by_columns = worst
    print({label: (round(by_columns[label], 3), round(local[label], 3)) for label in local})
    # Eight points, and what 1,000 stars know of a share.
    for label, off in local.items():
        assert off < 0.08 + 0.0147, label
    assert np.mean(list(local.values())) < np.mean(list(by_columns.values()))
