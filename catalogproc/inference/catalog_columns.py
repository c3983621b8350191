"""The catalog's columns from tokens and answers: small functions from columns to columns.

Three numbers say how far a label may be off:

    e_X          the whole: within it lie 68 % of true values
    e_X_input    the part that the errors of what was read cause (network/propagate.py)
    e_X_model    the rest: what the model cannot tell even from perfect data

with e_X^2 = e_X_model^2 + e_X_input^2. The network was trained on noisy inputs, so the sigma
that it states, once calibrated, is the whole, with the inputs' errors in it as they commonly
are: nothing is added to it. Only where the published errors of a star alone scatter its answer
by more than that are they the whole. See docs/uncertainties.md for how well this holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.features import astrometry, extinction
from catalogproc.network.uncertainty_calibration import Calibration

if TYPE_CHECKING:
    from catalogproc.features.tokens import Tokens
    from catalogproc.network.error_propagation import Propagated
    from catalogproc.network.predictor import Prediction

Columns = dict[str, NDArray[Any]]

LABEL_COLUMNS = {
    "teff": "teff",
    "logg": "logg",
    "m_h": "m_h",
    "mass": "mass",
    "log_age": "log_age",
    "logebv": "ln_ebv",
    "g_fakemag": "g_fakemag",
}
"""The catalog's column of each label; its errors are in ``e_<name>`` and the like."""

POSITIVE = ("mass", "g_fakemag")
"""Labels whose percentiles are taken in the logarithm: they are never negative."""

CORRELATED = (("teff", "logg"), ("teff", "m_h"), ("logg", "m_h"), ("mass", "log_age"))
"""Pairs of labels whose correlation the catalog has, the last as ``corr_mass_age``."""

CONTEXT = ("phot_g_mean_mag", "ln_ebv", "logg", "m_h")
"""What a calibration may depend on besides the stated sigma, by the catalog's names."""

LOW, HIGH = 0.158655, 0.841345  # one sigma of a Gaussian to either side
GYR = 9.0  # log10 of a Gyr in years


def observed(tokens: Tokens) -> Columns:
    """The columns that repeat what was read."""
    return {
        "_healpix_29": tokens.healpix29,
        "ra": tokens.ra,
        "dec": tokens.dec,
        "l": tokens.l,
        "b": tokens.b,
        "phot_g_mean_mag": tokens.g_mag,
        "bp_rp": tokens.bp_rp,
        "ruwe": tokens.ruwe,
        "parallax_zpc": tokens.parallax_zpc,
        "e_parallax": tokens.e_parallax,
        "parallax_zp": tokens.parallax_zp,
        "n_tokens": np.count_nonzero(~np.isnan(tokens.values), axis=1).astype(np.int16),
        "n_bp_relevant": tokens.n_bp_relevant,
        "n_rp_relevant": tokens.n_rp_relevant,
        "has_tmass": tokens.has_tmass,
    }


def answers(
    prediction: Prediction,
    propagated: Propagated | None,
    published: Propagated | None,
    calibration: Mapping[str, Calibration],
    known: Columns,
) -> Columns:
    """Labels, their errors in three parts and their correlations; NaN where not asked for.

    Parameters
    ----------
    propagated, published
        What the errors of what was read do to the answers, as the job takes these errors and
        as they are published. Without them the parts are not known, and e_X is the calibrated
        sigma alone.
    known
        Columns that calibrations may depend on.

    Errors that are taken for larger than published never make an e_X_input larger than e_X,
    which was found on stars whose errors are what they are.
    """
    columns: Columns = {}
    at = {label: place for place, label in enumerate(prediction.labels)}
    unasked = np.full(len(prediction.mean), np.nan)
    for label, name in LABEL_COLUMNS.items():
        asked = label in at
        columns[name] = prediction.mean[:, at[label]].astype(np.float64) if asked else unasked
    # No star has no mass: the model speaks of nothing that it knows (INFER_FAIL).
    columns["mass"] = np.where(columns["mass"] > 0, columns["mass"], np.nan)
    context = {name: (columns | known)[name] for name in CONTEXT if name in columns | known}
    for label, name in LABEL_COLUMNS.items():
        whole = inputs = rest = unasked
        if label in at:
            stated = prediction.sigma[:, at[label]]
            whole = calibration_of(calibration, label).sigma(stated, context)
        if label in at and propagated is not None and published is not None:
            whole = np.maximum(whole, published.sigma[:, at[label]])
            inputs = np.minimum(propagated.sigma[:, at[label]], whole)
            rest = np.sqrt(whole**2 - inputs**2)
        columns |= {f"e_{name}": whole, f"e_{name}_model": rest, f"e_{name}_input": inputs}
    for pair in CORRELATED:
        one, other = (name.removeprefix("log_") for name in pair)
        columns[f"corr_{one}_{other}"] = (
            propagated.correlation(*pair) if propagated and set(pair) <= set(at) else unasked
        )
    return columns


def calibration_of(calibration: Mapping[str, Calibration], label: str) -> Calibration:
    """A label's calibration; a Gaussian's where none is known."""
    known = calibration.get(label, Calibration())
    return known if known.terms else replace(known, logarithmic=label in POSITIVE)


def evolution(columns: Columns, calibration: Mapping[str, Calibration]) -> Columns:
    """Percentiles of mass and age, and the age in Gyr, from ``mass`` and ``log_age``.

    Both are taken in the logarithm, so neither is ever negative. ``age`` is the median where
    log_age's is, and ``e_age`` half of what lies between age_16 and age_84: for a Gaussian
    log_age that is age sinh(ln(10) e_log_age), to first order ln(10) age e_log_age.
    """
    mass, e_mass = columns["mass"], columns["e_mass"]
    log_age, e_log_age = columns["log_age"], columns["e_log_age"]
    of_mass, of_age = (calibration_of(calibration, label) for label in ("mass", "log_age"))
    young, old = (
        10.0 ** (of_age.percentile(log_age, e_log_age, level) - GYR) for level in (LOW, HIGH)
    )
    return {
        "mass_16": of_mass.percentile(mass, e_mass, LOW),
        "mass_84": of_mass.percentile(mass, e_mass, HIGH),
        "age": 10.0 ** (log_age - GYR),
        "e_age": (old - young) / 2.0,
        "age_16": young,
        "age_84": old,
    }


def reddening(columns: Columns, calibration: Mapping[str, Calibration]) -> Columns:
    """E(B-V) on both scales and A_V, mag, from ``ln_ebv``."""
    ln_ebv, error = columns["ln_ebv"], columns["e_ln_ebv"]
    of_ebv = calibration_of(calibration, "logebv")
    ebv = np.exp(ln_ebv)
    return {
        "ebv": ebv,
        "ebv_16": np.exp(of_ebv.percentile(ln_ebv, error, LOW)),
        "ebv_84": np.exp(of_ebv.percentile(ln_ebv, error, HIGH)),
        "ebv_true": extinction.true_ebv(ebv),
        "av": extinction.v_extinction(ebv),
    }


def luminosity(
    columns: Columns,
    tokens: Tokens,
    independent: NDArray[np.bool_],
    calibration: Mapping[str, Calibration],
) -> Columns:
    """Magnitudes, distances and parallax that follow from the model's pseudo-luminosity.

    Only where the model has not read the parallax (``independent``) is its answer compared
    with it, and combined with it where the parallax is usable. Percentiles of the model's
    distance are taken in the logarithm: none is negative, and each is finite. Those of the
    combined one follow from a Gaussian parallax, and may have no upper limit.
    """
    f, sigma = columns["g_fakemag"], columns["e_g_fakemag"]
    seen, e_seen = tokens.pseudo_luminosity, tokens.e_pseudo_luminosity
    mg_obs, _ = astrometry.absolute_magnitude(f, sigma)
    mg0 = mg_obs - extinction.g_extinction(columns["ebv"], columns["teff"])
    of_f = calibration_of(calibration, "g_fakemag")
    near, dist, far = (
        astrometry.distance(value, 0.0, tokens.g_mag)[1]
        for value in (of_f.percentile(f, sigma, HIGH), f, of_f.percentile(f, sigma, LOW))
    )
    parallax, e_parallax = astrometry.model_parallax(f, sigma, tokens.g_mag)
    both = independent & tokens.parallax_usable & np.isfinite(f)
    f_both, e_both = astrometry.combine(f, sigma, seen, e_seen)
    near_both, dist_both, far_both = astrometry.distance(
        np.where(both, f_both, np.nan), e_both, tokens.g_mag
    )
    tension = astrometry.tension(f, sigma, seen, e_seen)
    return {
        "mg_obs": mg_obs,
        "mg0": mg0,
        "log_lum_g": astrometry.log_luminosity(mg0),
        "dist": dist,
        "dist_16": near,
        "dist_84": far,
        "nn_parallax": parallax,
        "e_nn_parallax": e_parallax,
        "dist_comb": dist_both,
        "dist_comb_16": near_both,
        "dist_comb_84": far_both,
        "plx_nsig": np.where(independent, tension, np.nan),
    }
