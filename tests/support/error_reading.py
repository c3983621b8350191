"""Measurements on a model that reads errors, of real stars: how answers follow stated errors.

``python -m support.error_reading MODEL`` (in tests/) prints them.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from support import real_stars

from catalogproc.datasets.benchmark_stars import Benchmark
from catalogproc.datasets.kepler import parts
from catalogproc.features import canonical_correlations
from catalogproc.features.flux_calibration import calibration
from catalogproc.features.star_batch import StarBatch, read
from catalogproc.features.table_inputs import TableInputs, default_job
from catalogproc.features.tokens import Tokens, from_stars
from catalogproc.inference.engine import Engine
from catalogproc.inference.table_prediction import predict_table
from catalogproc.job import Job, load_job
from catalogproc.network.bundle import Bundle, load_bundle
from catalogproc.network.predictor import Predictor
from catalogproc.vocabulary import BANDS, Vocabulary

LABELS = ("teff", "logg", "m_h", "mass", "log_age")
Answers = dict[str, tuple[np.ndarray, np.ndarray]]
"""By label: predictions and total uncertainties (N,)."""


def model() -> Bundle:
    """The default model, or the one that the environment variable CATALOGPROC_TEST_MODEL names."""
    return load_bundle(os.environ.get("CATALOGPROC_TEST_MODEL", "default"))


@dataclass(frozen=True)
class Stars:
    """Real spectra, and their gaia_source columns."""

    spectra: pa.Table
    auxiliary: pa.Table | None

    def batch(self, bundle: Bundle) -> StarBatch:
        """The stars as arrays."""
        return read(self.spectra, self.auxiliary, bundle.vocabulary)


def bright() -> Stars:
    """30 stars of G 6 to 8 with correlations and photometry."""
    return Stars(real_stars.bright(), real_stars.bright_auxiliary())


class Asked:
    """A model asked about tokens, with the job that is the default but without 2MASS."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        given = load_job("gaia-dr3-giants")
        self.job: Job = replace(given, labels=LABELS, inputs=("bprp",))
        self.engine = Engine(bundle, self.job)

    def tokens(self, stars: StarBatch) -> Tokens:
        """The tokens of stars."""
        return from_stars(stars, self.bundle.vocabulary, self.job)

    def answers(self, tokens: Tokens) -> Answers:
        """Predictions and total uncertainties, as a catalog states them."""
        output = self.engine.predict(tokens)
        rows = self.engine.to_catalog(pa.array(tokens.source_id), tokens, output)
        return {x: (rows[x].to_numpy(), rows[f"e_{x}"].to_numpy()) for x in LABELS}


def giants(asked: Asked) -> Stars:
    """Stars of examples/, of which the model says good_params and log g below 3.5."""
    stars = Stars(real_stars.faint(), None)
    tokens = asked.tokens(stars.batch(asked.bundle))
    rows = asked.engine.to_catalog(pa.array(tokens.source_id), tokens, asked.engine.predict(tokens))
    kept = pc.and_(rows["good_params"], pc.less(rows["logg"], 3.5))
    return Stars(stars.spectra.filter(kept), None)


def redrawn(stars: StarBatch, seed: int) -> StarBatch:
    """The stars with coefficients drawn within their errors, correlations included."""
    rng = np.random.default_rng(seed)
    both = np.concatenate([stars.errors[band] for band in BANDS], axis=1)
    triangle = canonical_correlations.triangles("both", None, len(both), stars.correlations)
    noise = both * np.einsum("nij,nj->ni", triangle, rng.normal(size=both.shape))
    edge = stars.coefficients["bp"].shape[1]
    parts = dict(zip(BANDS, np.split(noise, [edge], axis=1), strict=True))
    drawn = {band: stars.coefficients[band] + parts[band] for band in BANDS}
    return replace(stars, coefficients=drawn)


def scatter_over_sigma(asked: Asked, stars: Stars, draws: int = 50) -> dict[str, np.ndarray]:
    """Scatter of the answers for redrawn coefficients over the stated uncertainty (N,), by label.

    G and BP - RP stay those of the observed spectrum: they are other measurements.
    """
    batch = stars.batch(asked.bundle)
    whole = asked.tokens(batch)
    sigma = {label: e for label, (_, e) in asked.answers(whole).items()}
    bprp = asked.bundle.vocabulary.column("bprp")
    found = []
    for seed in range(draws):
        made = asked.tokens(redrawn(batch, seed))
        scale = np.ones_like(whole.values)
        for band in BANDS:
            at = asked.bundle.vocabulary.coefficient_columns(band)
            scale[:, at] = (made.g_flux / whole.g_flux)[:, None]
        values, errors = made.values * scale, made.errors * scale
        values[:, bprp], errors[:, bprp] = whole.values[:, bprp], whole.errors[:, bprp]
        made = replace(made, values=values, errors=errors, g_mag=whole.g_mag, g_flux=whole.g_flux)
        found.append({label: y for label, (y, _) in asked.answers(made).items()})
    return {
        label: np.std([one[label] for one in found], axis=0, ddof=1) / sigma[label]
        for label in LABELS
    }


def scaled_errors(asked: Asked, stars: Stars, factor: float) -> Answers:
    """Answers with stated errors multiplied by a factor, values and which there are fixed."""
    tokens = asked.tokens(stars.batch(asked.bundle))
    return asked.answers(replace(tokens, errors=tokens.errors * factor))


def as_sampled(stars: Stars) -> Stars:
    """The same stars as sampled flux with its errors, in float32 as the archive has them."""
    batch = read(stars.spectra, None, replace(model().vocabulary, basis="archive"))
    by = calibration(batch.release)
    both = np.concatenate([batch.errors[band] for band in BANDS], axis=1)
    triangle = canonical_correlations.triangles("both", None, len(both), batch.correlations)
    weights = np.concatenate([by.weights[band] for band in BANDS], axis=1)
    factor = np.einsum("lc,nc,ncd->nld", weights, both, triangle, optimize=True)
    errors = np.sqrt(np.square(factor).sum(axis=2)).astype(np.float32)
    none = pa.nulls(len(both), pa.list_(pa.float64()))
    columns = {f"{band}_coefficient{what}": none for band in BANDS for what in ("s", "_errors")}
    flux = by.flux(batch.coefficients).astype(np.float32)
    lists = {"flux": pa.array(list(flux)), "flux_error": pa.array(list(errors))}
    return Stars(
        pa.table({"source_id": stars.spectra["source_id"]} | columns | lists), stars.auxiliary
    )


@dataclass(frozen=True)
class TwoRoads:
    """Differences between archive coefficients and sampled flux of the same stars.

    ``values`` (N, V): of tokens, over their error. ``same``: of the answers over sigma with the
    errors and tokens of the coefficients. ``own``: with each road's own errors and tokens.
    """

    values: np.ndarray
    same: dict[str, np.ndarray]
    own: dict[str, np.ndarray]


def two_roads(asked: Asked, stars: Stars) -> TwoRoads:
    """Ask about the same stars as coefficients and as sampled flux."""
    one, two = (asked.tokens(x.batch(asked.bundle)) for x in (stars, as_sampled(stars)))
    full = replace(asked.job, mask_irrelevant=False)
    every, every_two = (
        from_stars(x.batch(asked.bundle), asked.bundle.vocabulary, full)
        for x in (stars, as_sampled(stars))
    )
    present = np.isfinite(one.values)
    same = replace(two, values=np.where(present, every_two.values, np.nan), errors=one.errors)
    of = asked.answers(one)

    def off(answers: Answers) -> dict[str, np.ndarray]:
        return {label: np.abs(answers[label][0] - y) / e for label, (y, e) in of.items()}

    with np.errstate(invalid="ignore"):
        values = np.abs(every_two.values - every.values) / every.errors
    return TwoRoads(values, off(asked.answers(same)), off(asked.answers(two)))


KEPLER = ("bprp", "jh", "jk", "teff", "m_h", "g_fakemag")
"""Inputs of Kepler's giants, besides log g."""


def kepler_table(names: tuple[str, ...], vocabulary: Vocabulary) -> tuple[pa.Table, Benchmark]:
    """Kepler's giants that are kept for tests, as a table for ``infer`` with ``e_`` columns."""
    stars = parts(vocabulary)[1]
    columns: dict[str, np.ndarray] = {}
    for name in names:
        at = vocabulary.column(name)
        columns |= {name: stars.values[:, at], f"e_{name}": stars.errors[:, at]}
    return pa.table(columns), stars


def kepler_masses(bundle: Bundle, names: tuple[str, ...]) -> dict[str, float]:
    """Scatter, bias and normalised residuals of the masses of Kepler's giants."""
    table, stars = kepler_table(names, bundle.vocabulary)
    mean, sigma = mass_of(bundle, table)
    at = bundle.vocabulary.column("mass")
    off = mean - stars.truth[:, at]
    z = np.clip(off / np.hypot(sigma, stars.truth_errors[:, at]), -6, 6)
    middle = np.nanmedian(off)
    scatter = 1.4826 * np.nanmedian(np.abs(off - middle))
    return {"stars": len(off), "scatter": scatter, "bias": middle, "sd of z": np.nanstd(z)}


def mass_of(bundle: Bundle, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Masses and their total uncertainties (N,) of the rows of a table, as ``infer`` gives them."""
    inputs = TableInputs.of(table, bundle.vocabulary, default_job(bundle.vocabulary))
    found = predict_table(Predictor(bundle), inputs, ("mass",))
    return found.mean["mass"], found.sigma["mass"]


def teff_to_100_k(
    bundle: Bundle, names: tuple[str, ...], stars: int = 100, draws: int = 200
) -> np.ndarray:
    """Sigma of the mass over the scatter (N,) for draws of Teff within its error of 100 K."""
    table = kepler_table(names, bundle.vocabulary)[0].slice(0, stars)
    at = table.column_names.index("e_teff")
    table = table.set_column(at, "e_teff", pa.array(np.full(len(table), 100.0)))
    _, sigma = mass_of(bundle, table)
    many = table.take(np.tile(np.arange(len(table)), draws))
    drawn = many["teff"].to_numpy() + np.random.default_rng(5).normal(0, 100.0, len(many))
    at = table.column_names.index("teff")
    mean, _ = mass_of(bundle, many.set_column(at, "teff", pa.array(drawn)))
    return sigma / np.std(mean.reshape(draws, -1), axis=0, ddof=1)


def report(bundle: Bundle) -> None:
    """Print all measurements."""
    asked = Asked(bundle)
    for name, stars in (("bright", bright()), ("giants of examples/", giants(asked))):
        print(name, len(stars.spectra), "stars")
        print(name, "scatter of 50 redraws over e_X: median, 95 %, 99 %, share above 1.1")
        for label, ratio in scatter_over_sigma(asked, stars).items():
            print("  ", label, np.round(np.nanquantile(ratio, (0.5, 0.95, 0.99)), 3),
                  np.round(np.nanmean(ratio > 1.1), 4))  # fmt: skip
        base = scaled_errors(asked, stars, 1.0)
        print(
            name, "errors times a factor: |shift| / sigma at 50, 68, 95 %; sigma ratio at 5, 50 %"
        )
        for factor in (0.5, 2.0):
            made = scaled_errors(asked, stars, factor)
            for label in LABELS:
                (y, e), (y1, e1) = base[label], made[label]
                shift = np.abs(y1 - y) / e
                print("  ", factor, label, np.round(np.nanquantile(shift, (0.5, 0.68, 0.95)), 3),
                      np.round(np.nanquantile(e1 / e, (0.05, 0.5, 0.95)), 3))  # fmt: skip
        roads = two_roads(asked, stars)
        print(name, "two roads: tokens", np.round(np.nanmax(roads.values), 4))
        for label in LABELS:
            print("  ", label, "same errors, max", np.round(np.nanmax(roads.same[label]), 4),
                  "own errors, 50 and 95 %",
                  np.round(np.nanquantile(roads.own[label], (0.5, 0.95)), 3))  # fmt: skip

    for names in (KEPLER, (*KEPLER, "logg")):
        numbers = {name: round(float(x), 4) for name, x in kepler_masses(bundle, names).items()}
        print("Kepler", names[-1], numbers)
        ratio = teff_to_100_k(bundle, names)
        print("  sigma over scatter of 200 draws of Teff within 100 K: 0, 5, 50 %",
              np.round(np.nanquantile(ratio, (0, 0.05, 0.5)), 2))  # fmt: skip


if __name__ == "__main__":
    report(load_bundle(sys.argv[1]))
