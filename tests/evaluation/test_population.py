"""The distribution of a sample: the prior divided out, with errors that hold."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from support.bundles import tiny_bundle
from support.paths import ROOT

from catalogproc.contract import load_contract
from catalogproc.datasets.holdout import simulated_holdout
from catalogproc.errors import BundleError, ContractError, JobError
from catalogproc.evaluation.known_populations import known_populations
from catalogproc.evaluation.population import Population, population
from catalogproc.flags import load_flags
from catalogproc.network.bundle import Bundle, load_bundle
from catalogproc.network.bundle_writer import rewrite_bundle
from catalogproc.network.predictor import Predictor
from catalogproc.simulation.simulator import Simulator
from catalogproc.training.prior_sample import prior_sample

EDGES = [0.0, 1.0, 2.5, 5.0, 8.0, 14.0]
WANTED = np.array([0.1, 0.15, 0.2, 0.25, 0.3])
NOISE = 0.2
"""Error of the made-up spectra's log age, dex."""


def ages(fractions: np.ndarray, n: int, random: np.random.Generator) -> np.ndarray:
    """log10 of ages that are uniform within each bin."""
    bins = np.repeat(np.arange(len(fractions)), np.round(n * fractions).astype(int))
    low, high = np.array(EDGES)[bins], np.array(EDGES)[bins + 1]
    return np.log10(np.maximum(random.uniform(low, high), 0.05)) + 9.0


def predicted(truth: np.ndarray, prior: np.ndarray, random: np.random.Generator) -> pa.Table:
    """The exact posterior of a Gaussian measurement under a Gaussian approximation of a prior."""
    measured = truth + NOISE * random.normal(size=len(truth))
    weight = prior.var() / (prior.var() + NOISE**2)
    mean = prior.mean() + weight * (measured - prior.mean())
    sigma = np.full(len(truth), NOISE * np.sqrt(weight))
    return pa.table({"log_age": mean, "e_log_age": sigma * random.uniform(0.99, 1.01, len(sigma))})


def with_prior(bundle: Bundle, folder: Path, prior: np.ndarray, seed: int) -> Bundle:
    table = predicted(prior, prior, np.random.default_rng(seed))
    columns = {"true_log_age": prior.astype(np.float32)}
    columns |= {name: table[name].to_numpy().astype(np.float32) for name in table.column_names}
    columns["logg"] = np.where(np.arange(len(prior)) % 2, 2.0, 3.0).astype(np.float32)
    columns["phot_g_mean_mag"] = np.full(len(prior), 14.0, dtype=np.float32)
    columns["has_tmass"] = np.ones(len(prior), dtype=bool)
    rows = load_contract("prior").assemble(columns, len(prior))
    return rewrite_bundle(bundle, folder, prior=rows)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def priors(
    plain: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[Bundle, np.ndarray]]:
    """Two models with different training priors, mostly young and mostly old."""
    made = []
    for seed, fractions in ((1, [0.3, 0.3, 0.2, 0.1, 0.1]), (2, [0.05, 0.1, 0.2, 0.25, 0.4])):
        prior = ages(np.array(fractions), 20_000, np.random.default_rng(seed))
        made.append((with_prior(plain, tmp_path_factory.mktemp("with"), prior, seed), prior))
    return made


def found(model: Bundle, prior: np.ndarray, **options: str) -> Population:
    random = np.random.default_rng(9)
    stars = predicted(ages(WANTED, 20_000, random), prior, random)
    if options:
        stars = stars.append_column("logg", pa.array(np.full(len(stars), 2.0)))
    return population(stars, EDGES, model=model.path, **options)


def check(result: Population) -> None:
    error = np.abs(result.fractions - WANTED)
    assert error.max() < 0.03, result.lines()
    assert (error < result.errors).sum() >= 3, result.lines()
    assert result.fractions.sum() == pytest.approx(1.0)
    assert np.abs(result.histogram - WANTED).max() > 2 * error.max()


def test_the_same_population_is_found_whatever_the_prior(priors) -> None:
    results = [found(*made) for made in priors]
    for result in results:
        check(result)
        assert result.unlike < 0.001
        assert (result.stars, result.prior_stars) == (20_000, 20_000)
    young, old = results
    assert np.abs(young.prior - old.prior).max() > 0.2
    assert np.abs(young.histogram - old.histogram).max() > 0.04


def test_the_errors_grow_with_fewer_stars(priors) -> None:
    model, prior = priors[1]
    random = np.random.default_rng(4)
    few = population(predicted(ages(WANTED, 500, random), prior, random), EDGES, model=model.path)
    assert (few.errors > 1.5 * found(model, prior).errors).all()
    assert (np.abs(few.fractions - WANTED) < 3 * few.errors).all()


def test_a_condition_selects_stars_and_prior_alike(priors) -> None:
    result = found(*priors[1], where="logg < 2.5")
    assert (result.stars, result.prior_stars) == (20_000, 10_000)
    assert (np.abs(result.fractions - WANTED) < 3 * result.errors).all()


def test_samples_of_known_ages_are_found_apart(priors, plain: Bundle) -> None:
    model, prior = priors[1]
    random = np.random.default_rng(6)
    true = ages(WANTED, 20_000, random)
    catalog = predicted(true, prior, random)
    faint, without_tmass = np.arange(len(true)) % 10 == 0, np.arange(len(true)) % 10 == 1
    catalog = catalog.append_column("phot_g_mean_mag", [np.where(faint, 16.0, 14.0)])
    flags = np.where(without_tmass, load_flags().mask("NO_TMASS"), 0)
    catalog = catalog.append_column("quality_flags", [flags])
    true[::7] = np.nan  # not known
    result = {one.sample: one for one in known_populations(catalog, true, model)}
    assert set(result) == {"all", "younger", "older"}
    used = np.isfinite(true) & ~faint & ~without_tmass
    assert result["all"].found.stars == used.sum()
    young = [result[name].true[0] for name in ("younger", "all", "older")]
    assert young[0] > 1.5 * young[1] > 3 * young[2]
    for one in result.values():
        assert one.true.sum() == pytest.approx(1.0)
        # Two hundredths, because a part of a bin is kept more often than the rest of it.
        assert (np.abs(one.found.fractions - one.true) < 0.02 + 3 * one.found.errors).all()
        assert (one.found.errors < 0.1).all()
    assert known_populations(catalog, true, plain) == ()  # has no prior


def test_stars_unlike_the_prior_s_are_counted(priors) -> None:
    far = pa.table({"log_age": [5.0, 9.7], "e_log_age": [0.1, 0.1]})
    with pytest.raises(JobError, match="no star with a prediction"):
        population(far.slice(0, 0), EDGES, model=priors[0][0].path)
    result = population(far, EDGES, model=priors[0][0].path)
    assert result.stars == 2
    assert "prior" in "\n".join(result.lines())


def test_what_cannot_be_found_is_refused(plain: Bundle, priors, tmp_path: Path) -> None:
    stars, model = pa.table({"log_age": [9.0], "e_log_age": [0.1]}), priors[0][0].path
    with pytest.raises(BundleError, match="no training prior"):
        population(stars, EDGES, model=plain.path)
    with pytest.raises(JobError, match="no bins"):
        population(stars, [1, 1, 2], model=model)
    with pytest.raises(JobError, match="no such quantity"):
        population(stars, EDGES, "teff", model=model)
    with pytest.raises(JobError, match="too few stars in a bin"):
        population(stars, [0, 1, 2, 13.99, 13.995], model=model)
    with pytest.raises(ContractError, match="lacks columns"):
        population(stars, EDGES, "mass", model=model)
    with pytest.raises(ContractError, match="no such column"):
        population(stars, EDGES, model=model, where="ruwe < 1.4")


def test_a_changed_prior_is_refused(priors, tmp_path: Path) -> None:
    copy = rewrite_bundle(priors[0][0], tmp_path / "copy")
    pd.testing.assert_frame_equal(copy.prior().to_pandas(), priors[0][0].prior().to_pandas())
    path = copy.path / "prior.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"prior\.parquet was changed"):
        copy.prior()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_worked_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of docs/uncertainties.md, with a model whose prior is made as by calibrate."""
    model = load_bundle("giants")
    holdout = simulated_holdout(Simulator(), model.vocabulary, 30_000, 20_261_125, alike=True)
    prior = prior_sample(Predictor(model), holdout)
    assert len(prior) == 30_000
    rewrite_bundle(model, tmp_path / "with-prior", prior=prior)
    page = (ROOT / "docs" / "uncertainties.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page.split("## Populations")[1], re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(code, "docs/uncertainties.md", "exec"), names)
    result = names["found"]
    assert isinstance(result, Population)
    print(*result.lines(), sep="\n")
    error = np.abs(result.fractions - WANTED)
    assert error.max() < 0.03
    assert (error < 3 * result.errors).all()
    assert (error < result.errors).sum() >= 3
    assert np.abs(result.histogram - WANTED).max() > 0.1
