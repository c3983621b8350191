"""The catalog's columns from tokens and predictions: functions from columns to columns.

Each label X has two uncertainties:

    e_X          total uncertainty: 68 % of true values lie within it
    e_X_input    input uncertainty: what the errors of the inputs alone cause in X
                 (network/error_propagation.py), at most e_X

The network was trained on noisy inputs, so its sigma, once calibrated, is the total uncertainty
and includes input errors of the usual size: nothing is added to it. Only if the published errors of
a star alone cause more than that, they are the total. The sigma of a network that reads errors is
the total for the errors of each star. docs/uncertainties.md has the measured coverage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.features import astrometry, extinction
from catalogproc.inference.label_distribution import (
    HIGH,
    LOW,
    LabelDistribution,
    PropagatedPrediction,
    calibration_of,
    label_distribution,
)
from catalogproc.network.local_calibration import CLOSENESS

if TYPE_CHECKING:
    from catalogproc.features.tokens import Tokens
    from catalogproc.job import Job
    from catalogproc.network.bundle import Bundle
    from catalogproc.network.predictor import Prediction
    from catalogproc.network.uncertainty_calibration import LabelCalibration

Columns = dict[str, NDArray[Any]]

LABEL_COLUMNS = {
    "teff": "teff",
    "logg": "logg",
    "m_h": "m_h",
    "alpha_m": "alpha_m",
    "mass": "mass",
    "log_age": "log_age",
    "logebv": "ln_ebv",
    "g_fakemag": "g_fakemag",
}
"""The catalog's column of each label; uncertainties are in ``e_<name>`` and ``e_<name>_input``."""

PROBABILITIES = ("rc_prob",)
"""Labels that are probabilities, with a column of the same name: limited to 0 to 1, and without an
uncertainty, because the sigma of a network has no meaning for what is 0 or 1."""

CATALOG_LABELS = (*LABEL_COLUMNS, *PROBABILITIES)
"""All labels that a catalog may have."""

CORRELATED = (("teff", "logg"), ("teff", "m_h"), ("logg", "m_h"), ("mass", "log_age"))
"""Pairs of labels whose correlation is a column of the catalog, the last ``corr_mass_age``."""

CONTEXT = ("phot_g_mean_mag", "ln_ebv", "logg", "m_h")
"""Columns that a calibration may depend on besides the network's sigma."""

INDEPENDENT = ("g_fakemag",)
"""Labels that the catalog compares with the parallax, and combines with it: they are predicted
without the tokens that are made of it (network/questions.py)."""

LUMINOSITY_CONTEXT = ("teff", "logg", "m_h", "logebv")
"""Labels that the luminosity's columns and its calibration depend on: for these they are predicted
without the parallax too."""

GYR = 9.0  # log10 of a Gyr in years


def observed(tokens: Tokens) -> Columns:
    """Return the columns that repeat inputs.

    Parameters
    ----------
    tokens
        The inputs of N stars.
    """
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


def predicted_labels(
    found: PropagatedPrediction, distributions: Mapping[str, LabelDistribution]
) -> Columns:
    """Return labels, their two uncertainties and their correlations.

    The input uncertainty is limited to the total one, because the calibration was measured with
    errors of their real size, and the job may inflate them.

    Parameters
    ----------
    found
        Predictions for N stars.
    distributions
        By label.

    Returns
    -------
    Columns (N,); NaN for labels that were not predicted, and for input uncertainties that were
    not computed.
    """
    prediction, propagated = found.prediction, found.propagated
    nan = np.full(len(prediction.mean), np.nan)
    columns = label_columns(prediction)
    for label, name in LABEL_COLUMNS.items():
        total, inputs = distributions[label].sigma, nan
        if label in prediction.labels and propagated is not None:
            place = prediction.labels.index(label)
            inputs = np.minimum(propagated.sigma[:, place], total)
        columns |= {f"e_{name}": total, f"e_{name}_input": inputs}
    for pair in CORRELATED:
        one, other = (name.removeprefix("log_") for name in pair)
        columns[f"corr_{one}_{other}"] = (
            propagated.correlation(*pair)
            if propagated and set(pair) <= set(prediction.labels)
            else nan
        )
    return columns


def label_distributions(
    found: PropagatedPrediction, calibration: Mapping[str, LabelCalibration], columns: Columns
) -> dict[str, LabelDistribution]:
    """Return the calibrated distributions of the catalog's labels; NaN if not predicted.

    Parameters
    ----------
    found
        Predictions for N stars.
    calibration
        By label.
    columns
        With the labels (:func:`label_columns`) and others that calibrations may depend on.
    """
    distributions = {}
    for label, name in LABEL_COLUMNS.items():
        if label in found.prediction.labels:
            context = calibration_context(found, label, columns)
            made = label_distribution(found, label, calibration, context)
            distributions[label] = replace(made, mean=columns[name])
        else:
            nan = np.full(len(columns[name]), np.nan)
            distributions[label] = LabelDistribution(calibration_of(calibration, label), nan, nan)
    return distributions


def luminosity_context(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the labels that are also predicted without the parallax; none if none is compared.

    Parameters
    ----------
    labels
        The labels that are predicted.
    """
    if set(labels).isdisjoint(INDEPENDENT):
        return ()
    return tuple(label for label in labels if label in LUMINOSITY_CONTEXT)


def calibration_context(found: PropagatedPrediction, label: str, columns: Columns) -> Columns:
    """Return the quantities that the calibration of a label may depend on.

    Parameters
    ----------
    found
        Predictions for N stars.
    label
        The label; those of :data:`INDEPENDENT` get columns that do not depend on the parallax, and
        no closeness to places in the latent space, where a parallax moves a star.
    columns
        With the labels and the G magnitude (N,).
    """
    known = without_parallax(found, columns) if label in INDEPENDENT else columns
    context = {name: known[name] for name in CONTEXT if name in known}
    closeness = found.prediction.closeness
    if closeness is not None and label not in INDEPENDENT:
        context[CLOSENESS] = closeness
    return context


def without_parallax(found: PropagatedPrediction, columns: Columns) -> Columns:
    """Return the columns, with :data:`LUMINOSITY_CONTEXT` as predicted without the parallax.

    Parameters
    ----------
    found
        Predictions for N stars.
    columns
        Columns (N,).
    """
    if found.without_parallax is None:
        return columns
    known = label_columns(found.without_parallax)
    named = [LABEL_COLUMNS[label] for label in found.without_parallax.labels]
    replaced = {name: known[name] for name in named}
    if "ln_ebv" in replaced:
        replaced["ebv"] = np.exp(replaced["ln_ebv"])
    return columns | replaced


def requested_labels(job: Job, bundle: Bundle) -> tuple[str, ...]:
    """Return the labels that a job requests of a model: all that both have where it names none.

    Parameters
    ----------
    job
        Its labels are looked at.
    bundle
        The model; labels that it cannot predict are left out.
    """
    return tuple(x for x in job.labels or CATALOG_LABELS if x in bundle.requestable)


def label_columns(prediction: Prediction) -> Columns:
    """Return the predictions of the catalog's labels (N,), by the catalog's names.

    A mass that is not positive is unphysical: NaN, and the flag INFER_FAIL. A label that was
    not predicted is NaN too. PROBABILITIES are limited to 0 to 1.

    Parameters
    ----------
    prediction
        Of N stars.
    """
    index = {label: place for place, label in enumerate(prediction.labels)}
    columns: Columns = {
        LABEL_COLUMNS.get(label, label): prediction.mean[:, index[label]].astype(np.float64)
        if label in index
        else np.full(len(prediction.mean), np.nan)
        for label in CATALOG_LABELS
    }
    columns["mass"] = np.where(columns["mass"] > 0, columns["mass"], np.nan)
    for label in PROBABILITIES:
        columns[label] = np.clip(columns[label], 0.0, 1.0)
    return columns


def evolution(columns: Columns, distributions: Mapping[str, LabelDistribution]) -> Columns:
    """Return percentiles of mass and age, and the age in Gyr.

    Those of a Gaussian mass are computed in the logarithm, so that none is negative. ``e_age`` is
    half of the difference of age_84 and age_16: for a Gaussian log_age that is
    age sinh(ln(10) e_log_age), to first order ln(10) age e_log_age.

    Parameters
    ----------
    columns
        With ``log_age`` (N,).
    distributions
        By label.
    """
    mass, log_age = distributions["mass"], distributions["log_age"]
    young, old = (10.0 ** (log_age.percentile(level) - GYR) for level in (LOW, HIGH))
    return {
        "mass_16": mass.percentile(LOW),
        "mass_84": mass.percentile(HIGH),
        "age": 10.0 ** (columns["log_age"] - GYR),
        "e_age": (old - young) / 2.0,
        "age_16": young,
        "age_84": old,
    }


def reddening(columns: Columns, distributions: Mapping[str, LabelDistribution]) -> Columns:
    """Return E(B-V) on the SFD and on the true scale, and A_V, all in mag.

    Parameters
    ----------
    columns
        With ``ln_ebv`` (N,).
    distributions
        By label.
    """
    ln_ebv = distributions["logebv"]
    ebv = np.exp(columns["ln_ebv"])
    return {
        "ebv": ebv,
        "ebv_16": np.exp(ln_ebv.percentile(LOW)),
        "ebv_84": np.exp(ln_ebv.percentile(HIGH)),
        "ebv_true": extinction.true_ebv(ebv),
        "av": extinction.v_extinction(ebv),
    }


def luminosity(
    columns: Columns, tokens: Tokens, distributions: Mapping[str, LabelDistribution]
) -> Columns:
    """Return magnitudes, distances and parallax from the predicted pseudo-luminosity.

    Percentiles of the distance are computed in the logarithm: positive and finite.

    Parameters
    ----------
    columns
        With ``g_fakemag``, its uncertainty, ``ebv`` and ``teff`` (N,), as
        :func:`without_parallax` returns them.
    tokens
        The inputs.
    distributions
        By label.
    """
    f, sigma = columns["g_fakemag"], columns["e_g_fakemag"]
    high, low = (distributions["g_fakemag"].percentile(level) for level in (HIGH, LOW))
    near, dist, far = (astrometry.distance(value, 0.0, tokens.g_mag)[1] for value in (high, f, low))
    mg_obs, _ = astrometry.absolute_magnitude(f, sigma)
    mg0 = mg_obs - extinction.g_extinction(columns["ebv"], columns["teff"], tokens.release)
    parallax, e_parallax = astrometry.model_parallax(f, sigma, tokens.g_mag)
    return {
        "mg_obs": mg_obs,
        "mg0": mg0,
        "log_lum_g": astrometry.log_luminosity(mg0),
        "dist": dist,
        "dist_16": near,
        "dist_84": far,
        "nn_parallax": parallax,
        "e_nn_parallax": e_parallax,
    }


def combined_distance(columns: Columns, tokens: Tokens) -> Columns:
    """Return the distance from prediction and parallax together, and their difference.

    The prediction does not depend on the parallax (:data:`INDEPENDENT`). Percentiles assume a
    Gaussian parallax; the upper one may be infinite.

    Parameters
    ----------
    columns
        With ``g_fakemag`` and its uncertainty (N,).
    tokens
        The inputs, with the parallax.
    """
    f, sigma = columns["g_fakemag"], columns["e_g_fakemag"]
    f_parallax, e_f_parallax = tokens.pseudo_luminosity, tokens.e_pseudo_luminosity
    usable = tokens.parallax_usable & np.isfinite(f)
    f_both, e_both = astrometry.combine(f, sigma, f_parallax, e_f_parallax)
    near, dist, far = astrometry.distance(np.where(usable, f_both, np.nan), e_both, tokens.g_mag)
    return {
        "dist_comb": dist,
        "dist_comb_16": near,
        "dist_comb_84": far,
        "plx_nsig": astrometry.tension(f, sigma, f_parallax, e_f_parallax),
    }
