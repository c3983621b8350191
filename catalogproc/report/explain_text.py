"""A star's explanation in words, a line each, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from catalogproc.contract import load_contract, load_flags
from catalogproc.report.explain import Answer, Explanation
from catalogproc.vocabulary import BANDS

_COLUMNS = {
    "teff": ("teff", "K", ".0f"),
    "logg": ("logg", "dex", ".3f"),
    "m_h": ("m_h", "dex", ".3f"),
    "mass": ("mass", "solMass", ".3f"),
    "log_age": ("log_age", "dex(yr)", ".3f"),
    "logebv": ("ln_ebv", "ln mag", ".3f"),
    "g_fakemag": ("g_fakemag", "", ".3g"),
}
MOST_TOKENS = 12
"""How many tokens outside of the training stars' range are named."""


def lines(star: Explanation) -> Iterator[str]:
    """The explanation, section by section."""
    yield f"source_id {star.source_id}"
    yield f"  {star.file}, row {star.place:,}; chunk {star.receipt.chunk_id}"
    yield (
        f"  run {star.identity.run_id}, model {star.identity.model.get('name')} "
        f"({star.identity.model_id}), job {star.identity.job.get('name')}"
    )
    if star.again:
        yield f"  stands {star.again} times more in this run: overlapping input files"
    if star.rejected:
        yield f"rejected: {star.rejected['reason']}"
        yield f"  {star.rejected['detail']}"
        return
    yield from _input(star)
    yield from _answers(star)
    yield from _attention(star)
    yield from _flags(int(star.row["quality_flags"]))
    yield from _spectrum(star)


def _input(star: Explanation) -> Iterator[str]:
    row = star.row
    yield "what was known of it"
    for name in ("ra", "dec", "phot_g_mean_mag", "bp_rp", "parallax_zpc", "ruwe"):
        unit = load_contract("catalog")[name].unit
        value = row[name]
        told = "not known" if np.isnan(value) else f"{value:.6g} {unit}".rstrip()
        yield f"  {name:16} {told}"
    bands = {band: sum(name.startswith(band) for name in star.tokens
                       if name[2:].isdigit()) for band in BANDS}  # fmt: skip
    others = [name for name in star.tokens if not name[2:].isdigit()]
    yield (
        f"  the model read {len(star.tokens)} tokens: {bands['bp']} BP and {bands['rp']} RP "
        f"coefficients, {', '.join(others) or 'nothing besides'}"
    )
    outside = [name for name, out in zip(star.tokens, outside_training(star), strict=True) if out]
    if outside:
        more = len(outside) - MOST_TOKENS
        yield (
            "  outside of the training stars' range: "
            + ", ".join(outside[:MOST_TOKENS])
            + (f" and {more} more" if more > 0 else "")
        )


def outside_training(star: Explanation) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which of its tokens (T,) lie outside of the range of the training stars."""
    assert star.standardised is not None
    assert star.low is not None
    assert star.high is not None
    return np.asarray((star.standardised < star.low) | (star.standardised > star.high))


def _answers(star: Explanation) -> Iterator[str]:
    yield "what the model answered, its error, and of that the errors of what it read and the rest"
    for answer in star.answers:
        name, unit, form = _COLUMNS[answer.label]
        parts = f"input ± {answer.inputs:{form}}, rest ± {answer.rest:{form}}"
        yield (
            f"  {name:10} {answer.mean:>10{form}} ± {answer.sigma:<8{form}} {unit:8}"
            + (f" {parts}" if np.isfinite(answer.inputs) else "")
        )
    row = star.row
    if np.isfinite(row["age"]):
        yield f"  age {row['age']:.2f} Gyr, 16 to 84 %: {row['age_16']:.2f} to {row['age_84']:.2f}"
    if np.isfinite(row["dist"]):
        yield f"  distance {row['dist']:.2f} kpc, 16 to 84 %: {row['dist_16']:.2f} to {_far(row)}"


def _far(row: object) -> str:
    value = row["dist_84"]  # type: ignore[index]
    return "no limit" if np.isnan(value) else f"{value:.2f}"


def attended(star: Explanation, answer: Answer) -> dict[str, float]:
    """The shares of attention by kind of token: BP, RP, each other token, and none."""
    shares: dict[str, float] = {}
    for name, share in zip((*star.tokens, "no token"), answer.attention, strict=True):
        kind = name[:2].upper() if name[2:].isdigit() else name
        shares[kind] = shares.get(kind, 0.0) + float(share)
    return shares


def _attention(star: Explanation) -> Iterator[str]:
    yield "where it looked (attention of the last block; it tells where, not why)"
    for answer in star.answers:
        shares = sorted(attended(star, answer).items(), key=lambda item: -item[1])
        told = ", ".join(f"{kind} {share:.0%}" for kind, share in shares if share >= 0.01)
        yield f"  {_COLUMNS[answer.label][0]:10} {told}"


def _flags(value: int) -> Iterator[str]:
    flags = load_flags()
    names = flags.words(value)
    yield "flags" if names else "flags: none is set"
    for name in names:
        flag = flags[name]
        out = "good_params, good_mass_age" if flag.value & flags.good_params else ""
        out = out or ("good_mass_age" if flag.value & flags.good_mass_age else "")
        yield f"  {name:17} {flag.description}" + (f"; keeps out of {out}" if out else "")
    for rule in ("good_params", "good_mass_age"):
        word = "no" if value & getattr(flags, rule) else "yes"
        yield f"  {rule}: {word}"


def _spectrum(star: Explanation) -> Iterator[str]:
    if star.observed is None or star.believed is None or star.believed_from is None:
        return
    both = np.hypot(star.observed.error, star.believed.error)
    apart = np.abs(star.observed.flux - star.believed.flux)
    share = float(np.median(apart / np.abs(star.observed.flux)))
    counts = " and ".join(f"{n} {band.upper()}" for band, n in star.believed_from.items())
    yield "the spectrum that the model expects of a star with these answers"
    yield (
        f"  from {counts} coefficients: median difference to the observed flux {share:.1%}, "
        f"{float(np.median(apart / both)):.1f} of their joint error"
    )
