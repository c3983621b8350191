"""The explanation of a star as lines of text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from catalogproc.contract import load_contract
from catalogproc.errors import plural
from catalogproc.flags import load_flags, load_input_flags
from catalogproc.report.explain import Explanation, LabelPrediction
from catalogproc.vocabulary import BANDS

_COLUMNS = {
    "teff": ("teff", "K", ".0f"),
    "logg": ("logg", "dex", ".3f"),
    "m_h": ("m_h", "dex", ".3f"),
    "alpha_m": ("alpha_m", "dex", ".3f"),
    "mass": ("mass", "solMass", ".3f"),
    "log_age": ("log_age", "dex(yr)", ".3f"),
    "logebv": ("ln_ebv", "ln mag", ".3f"),
    "g_fakemag": ("g_fakemag", "", ".3g"),
    "rc_prob": ("rc_prob", "", ".3f"),
}
_PROBABILITIES = {"rc_prob": "probability of the red clump"}
MAX_NAMED_TOKENS = 12
"""How many tokens outside of the training range are named."""


def explanation_lines(star: Explanation) -> Iterator[str]:
    """Yield the explanation line by line.

    Parameters
    ----------
    star
        The explained star.
    """
    yield f"source_id {star.source_id}"
    yield f"  {star.file}, row {star.row_number:,}; chunk {star.receipt.chunk_id}"
    yield (
        f"  run {star.identity.run_id}, model {star.identity.model.get('name')} "
        f"({star.identity.model_id}), job {star.identity.job.get('name')}"
    )
    if star.duplicates:
        rows = f"{star.duplicates} other row{'s' * (star.duplicates != 1)}"
        yield f"  {rows} of this run with the same source_id: overlapping input files"
    if star.rejected:
        yield f"Rejected: {star.rejected['reason']}"
        yield f"  {star.rejected['detail']}"
        return
    yield from _input(star)
    yield from _predictions(star)
    yield from _attention(star)
    yield from _flags(int(star.row["quality_flags"]))
    yield from _facts(int(star.row["input_flags"]))
    yield from _spectrum(star)


def _input(star: Explanation) -> Iterator[str]:
    row = star.row
    yield "Inputs"
    for name in ("ra", "dec", "phot_g_mean_mag", "bp_rp", "parallax_zpc", "ruwe"):
        unit = load_contract("catalog")[name].unit
        value = row[name]
        text = "unknown" if np.isnan(value) else f"{value:.6g} {unit}".rstrip()
        yield f"  {name:16} {text}"
    coefficients = [name for name in star.tokens if name[2:].isdigit()]
    number = {band: sum(name.startswith(band) for name in coefficients) for band in BANDS}
    others = [name for name in star.tokens if name not in coefficients]
    yield (
        f"  {plural(len(star.tokens), 'token')}: {number['bp']} BP and {number['rp']} RP "
        f"coefficients, {', '.join(others) or 'no others'}"
    )
    outside = [name for name, out in zip(star.tokens, outside_training(star), strict=True) if out]
    if outside:
        more = len(outside) - MAX_NAMED_TOKENS
        yield (
            "  outside of the training range: "
            + ", ".join(outside[:MAX_NAMED_TOKENS])
            + (f" and {more} more" if more > 0 else "")
        )


def outside_training(star: Explanation) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which of a star's tokens (T,) are outside of the range of the training stars.

    Parameters
    ----------
    star
        The explained star; it was not rejected.
    """
    assert star.standardised is not None
    assert star.low is not None
    assert star.high is not None
    return np.asarray((star.standardised < star.low) | (star.standardised > star.high))


def _predictions(star: Explanation) -> Iterator[str]:
    yield "Predictions: value ± total uncertainty"
    for prediction in star.predictions:
        name, unit, form = _COLUMNS[prediction.label]
        parts = f" by errors of the inputs alone ± {prediction.input_sigma:{form}}"
        if prediction.label in _PROBABILITIES:
            meaning = _PROBABILITIES[prediction.label]
            yield f"  {name:10} {prediction.mean:>10{form}}   {meaning}"
            continue
        yield (
            f"  {name:10} {prediction.mean:>10{form}} ± {prediction.sigma:<8{form}} {unit:8}"
            + (parts if np.isfinite(prediction.input_sigma) else "")
        )
    row = star.row
    if np.isfinite(row["age"]):
        yield f"  age {row['age']:.2f} Gyr, 16 to 84 %: {row['age_16']:.2f} to {row['age_84']:.2f}"
    if np.isfinite(row["dist"]):
        limits = f"{row['dist_16']:.2f} to {_upper_limit(row)}"
        yield f"  distance {row['dist']:.2f} kpc, 16 to 84 %: {limits}"


def _upper_limit(row: Mapping[str, Any]) -> str:
    value = row["dist_84"]
    return "no limit" if np.isnan(value) else f"{value:.2f}"


def attention_shares(star: Explanation, prediction: LabelPrediction) -> dict[str, float]:
    """Return the shares of attention by kind: BP, RP, each other token, and no token.

    Parameters
    ----------
    star
        The explained star.
    prediction
        One of its predictions.
    """
    shares: dict[str, float] = {}
    for name, share in zip((*star.tokens, "no token"), prediction.attention, strict=True):
        kind = name[:2].upper() if name[2:].isdigit() else name
        shares[kind] = shares.get(kind, 0.0) + float(share)
    return shares


def _attention(star: Explanation) -> Iterator[str]:
    yield "Attention of the last block (which tokens were used, not why)"
    for prediction in star.predictions:
        shares = sorted(attention_shares(star, prediction).items(), key=lambda item: -item[1])
        text = ", ".join(f"{kind} {share:.0%}" for kind, share in shares if share >= 0.01)
        yield f"  {_COLUMNS[prediction.label][0]:10} {text}"


def _flags(value: int) -> Iterator[str]:
    flags = load_flags()
    names = flags.words(value)
    yield "Flags" if names else "Flags: none"
    for name in names:
        flag = flags[name]
        samples = "good_params, good_mass_age" if flag.value & flags.good_params else ""
        samples = samples or ("good_mass_age" if flag.value & flags.good_mass_age else "")
        yield f"  {name:17} {flag.description}" + (f"; excluded from {samples}" * bool(samples))
    for sample in ("good_params", "good_mass_age"):
        yield f"  {sample}: {'no' if value & getattr(flags, sample) else 'yes'}"


def _facts(value: int) -> Iterator[str]:
    flags = load_input_flags()
    names = flags.words(value)
    if names:
        yield "Facts about the inputs"
    for name in names:
        yield f"  {name:17} {flags[name].description}"


def _spectrum(star: Explanation) -> Iterator[str]:
    observed, predicted = star.observed, star.predicted
    if observed is None or predicted is None or star.predicted_coefficients is None:
        return
    joint_error = np.hypot(observed.error, predicted.error)
    difference = np.abs(observed.flux - predicted.flux)
    relative = float(np.median(difference / np.abs(observed.flux)))
    in_sigma = float(np.median(difference / joint_error))
    counts = " and ".join(f"{n} {b.upper()}" for b, n in star.predicted_coefficients.items())
    yield "Spectrum that the model predicts from these labels"
    yield (
        f"  from {counts} coefficients: median difference to the observed flux {relative:.1%}, "
        f"{in_sigma:.1f} of the joint uncertainty"
    )
