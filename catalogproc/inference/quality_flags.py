"""The quality flags of a catalog row.

The flags are declared in schemas/flags.toml; this module has the rule of each. An unknown
value raises no flag, except those that state that something is missing (NO_XP, XP_ONE_BAND,
FEW_TOKENS, PLX_BAD, NO_TMASS, INFER_FAIL). OOD_LATENT and IN_TRAINING need data that not every
bundle has, SPEC_CHI2 and NONLINEAR a job that computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.features import astrometry, extinction
from catalogproc.flags import load_flags
from catalogproc.release import Release, load_release

# Thresholds, each with its source.
MIN_TOKENS = 13  # Leung & Bovy 2024, panel c: 13 tokens still give 63 K
G_BRIGHT, G_FAINT = 6.0, 17.5  # mag; Leung & Bovy 2024, training sample
COLOUR_BLUE, COLOUR_RED = 0.0, 4.0  # mag, BP - RP; Leung & Bovy 2024
MAX_RUWE = 1.4  # Leung & Bovy 2024; Andrae et al. 2023
MAX_EXCESS = 2.0  # phot_bp_rp_excess_factor; Leung & Bovy 2024
MAX_BLENDED = 0.5  # blended fraction of BP and RP transits, β of Riello et al. 2021
MAX_PARALLAX_ERROR = 0.1  # mas; Leung & Bovy 2024
MAX_PARALLAX_NSIG = 10.0  # Zhang, Green & Rix 2023, their bit 5
MAX_EBV = 1.5  # mag, SFD scale; beyond it Leung & Bovy 2024 have few stars
GIANT_LOGG = 3.5  # dex; DistMass ages end there
GIANT_TEFF = 5800.0  # K; the hottest giants of training
GIANT_NSIG = 3.0  # sigma by which a parallax is lowered before log g is computed from it
SUN_LOGG, SUN_TEFF = 4.438, 5772.0  # dex, K; IAU 2015 Resolution B3
MAX_E_TEFF, MAX_E_LOGG, MAX_E_M_H = 500.0, 0.5, 0.5  # K, dex, dex; Leung & Bovy 2024
MAX_MASS_ERROR = 0.3  # relative; three times the error of the mass labels
MAX_AGE_ERROR = 0.5  # relative; Kordopatis et al. 2023
MAX_CHI2 = 2.0  # reduced; Zhang, Green & Rix 2023, their bit 3
MAX_AGE = 13.8  # Gyr; age of the universe (Planck 2018)
EDGE_LABELS = ("teff", "logg", "m_h", "alpha_m", "mass", "log_age")
"""Labels that LABEL_EDGE checks. Reddening and pseudo-luminosity are left out, because zero is a
usual value of the reddening and the end of its range."""

Mask = NDArray[np.bool_]
Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Evidence:
    """What the rules need besides the catalog's columns, for N stars.

    Attributes
    ----------
    bp, rp
        At least one coefficient of the band is an input (N,).
    excess_factor
        phot_bp_rp_excess_factor (N,), NaN where unknown.
    blended_fraction
        Blended transits divided by all BP and RP transits (N,), NaN where unknown.
    multiple_or_variable
        Gaia lists it as non-single or variable (N,).
    synthetic
        G and BP - RP were computed from the spectrum (N,).
    failed
        A predicted label or its sigma is not finite, or a mass is not positive (N,).
    limits
        Lowest and highest value of each label among the training stars; NaN where unknown.
    nonlinear
        The two methods of error propagation disagree (N,).
    beyond_box
        The largest distance of a coefficient outside the training stars' range (N,), in
        widths of the range; 0 if none is outside.
    latent_limit, margin, chi2_limit
        Limits of ood_mahal, ``beyond_box`` and xp_chi2_red, that 99 %, 99.5 % and 99.8 % of
        training stars do not exceed; the first may be one per star (N,).
    release
        The Gaia release of the photometry.
    """

    bp: Mask
    rp: Mask
    excess_factor: NDArray[np.floating]
    blended_fraction: NDArray[np.floating]
    multiple_or_variable: Mask
    synthetic: Mask
    failed: Mask
    limits: Mapping[str, tuple[float, float]]
    nonlinear: Mask
    beyond_box: NDArray[np.floating]
    latent_limit: float | NDArray[np.floating] = np.inf
    margin: float = 0.0
    chi2_limit: float = 0.0
    release: Release = field(default_factory=load_release)


def flags(columns: Columns, evidence: Evidence) -> NDArray[np.int32]:
    """Return quality_flags.

    Parameters
    ----------
    columns
        The catalog's columns (N,).
    evidence
        What the rules need besides.

    Returns
    -------
    (N,), the bits of all flags that a star raises.
    """
    declared = load_flags()
    value = np.zeros(len(evidence.bp), dtype=np.int32)
    for name, rule in RULES.items():
        value[rule(columns, evidence)] |= declared[name].value
    return value


def good_params(value: NDArray[np.int32]) -> Mask:
    """Return the stars whose teff, logg and m_h can be used (N,).

    Parameters
    ----------
    value
        quality_flags (N,).
    """
    good: Mask = (value & load_flags().good_params) == 0
    return good


def good_mass_age(value: NDArray[np.int32]) -> Mask:
    """Return the stars whose mass and age can be used (N,).

    Parameters
    ----------
    value
        quality_flags (N,).
    """
    good: Mask = (value & load_flags().good_mass_age) == 0
    return good


def outside_mass_domain(
    teff: NDArray[np.floating], logg: NDArray[np.floating], m_h: NDArray[np.floating]
) -> Mask:
    """Return the stars outside the part of the Kiel diagram that has mass labels.

    The polygon of APOGEE DR17's DistMass catalogue (Stone-Martinez et al. 2024).

    Parameters
    ----------
    teff, logg, m_h
        K, dex, dex (N,).

    Returns
    -------
    (N,); False where a value is NaN.
    """
    t, g = np.asarray(teff, dtype=np.float64), np.asarray(logg, dtype=np.float64)
    outside: Mask = (
        ((t < 4500) & (g > 3))
        | (g > 4.9)
        | (t > 6800)
        | ((t > 5500) & (g < 3.1))
        | (g < 1.1)
        | (g < 0.000906 * t - 2.525)
        | ((g < 2) & (t > 4800) & (t < 5500))
        | ((g > 0.002 * t - 6.2) & (g < 4.1))
        | (np.asarray(m_h) < -0.5)
    )
    return outside


def gravity_by_parallax(c: Columns, release: Release) -> NDArray[np.float64]:
    """Return log g, dex, for one solar mass at parallax - 3 sigma.

    Computed at the parallax lowered by GIANT_NSIG sigma and at the 84th percentile of E(B-V),
    with the predicted Teff and the Sun's bolometric correction. It is too high for cool dwarfs,
    which are flagged all the same, and too low for giants heavier than the Sun.

    Parameters
    ----------
    c
        The catalog's columns (N,).
    release
        The Gaia release of the photometry.

    Returns
    -------
    (N,); NaN where a value is unknown, or the lowered parallax is not positive.
    """
    parallax = c["parallax_zpc"].astype(np.float64) - GIANT_NSIG * c["e_parallax"]
    f, _ = astrometry.pseudo_luminosity(parallax, 0.0, c["phot_g_mean_mag"])
    teff = np.where(c["teff"] > 0, c["teff"], np.nan).astype(np.float64)
    a_g = extinction.g_extinction(c["ebv_84"], teff, release)
    m_g = astrometry.absolute_magnitude(f, 0.0)[0] - a_g
    log_t4 = 4.0 * np.log10(teff / SUN_TEFF)
    return np.asarray(SUN_LOGG + log_t4 - astrometry.log_luminosity(m_g))


def _not_giant(c: Columns, e: Evidence) -> Mask:
    # A model trained on giants alone predicts a giant's log g for many dwarfs; the parallax helps.
    return (c["logg"] >= GIANT_LOGG) | (gravity_by_parallax(c, e.release) >= GIANT_LOGG)


def _may_be_dwarf(c: Columns, e: Evidence) -> Mask:
    return (c["teff"] + c["e_teff"] >= GIANT_TEFF) | (c["logg"] + c["e_logg"] >= GIANT_LOGG)


def _label_edge(c: Columns, e: Evidence) -> Mask:
    near = np.zeros(len(e.bp), dtype=bool)
    for label in EDGE_LABELS:
        low, high = e.limits.get(label, (np.nan, np.nan))
        value, error = c[label], c[f"e_{label}"]
        near |= (value - error < low) | (value + error > high)
    return near


def _age_limit(c: Columns, e: Evidence) -> Mask:
    youngest = e.limits.get("log_age", (np.nan, np.nan))[0]
    return (c["age"] > MAX_AGE) | (c["log_age"] < youngest)


def _parallax_bad(c: Columns, e: Evidence) -> Mask:
    # Raised for an unknown parallax too. There is no zero-point where no parallax was solved for.
    return ~((c["e_parallax"] <= MAX_PARALLAX_ERROR) & np.isfinite(c["parallax_zp"]))


RULES: Mapping[str, Callable[[Columns, Evidence], Mask]] = {
    "NO_XP": lambda c, e: ~e.bp & ~e.rp,
    "XP_ONE_BAND": lambda c, e: e.bp != e.rp,
    "FEW_TOKENS": lambda c, e: c["n_tokens"] < MIN_TOKENS,
    "G_RANGE": lambda c, e: (c["phot_g_mean_mag"] <= G_BRIGHT) | (c["phot_g_mean_mag"] >= G_FAINT),
    "COLOUR_RANGE": lambda c, e: (c["bp_rp"] <= COLOUR_BLUE) | (c["bp_rp"] >= COLOUR_RED),
    "RUWE": lambda c, e: c["ruwe"] >= MAX_RUWE,
    "BPRP_EXCESS": lambda c, e: e.excess_factor >= MAX_EXCESS,
    "XP_BLEND": lambda c, e: e.blended_fraction > MAX_BLENDED,
    "XP_BOX": lambda c, e: e.beyond_box > e.margin,
    "PLX_BAD": _parallax_bad,
    "PLX_INCONSISTENT": lambda c, e: np.abs(c["plx_nsig"]) > MAX_PARALLAX_NSIG,
    "NO_TMASS": lambda c, e: ~c["has_tmass"],
    "HIGH_EBV": lambda c, e: c["ebv"] > MAX_EBV,
    "NOT_GIANT": _not_giant,
    "MAY_BE_DWARF": _may_be_dwarf,
    "EVOL_DOMAIN": lambda c, e: outside_mass_domain(c["teff"], c["logg"], c["m_h"]),
    "LABEL_EDGE": _label_edge,
    "UNC_TEFF": lambda c, e: c["e_teff"] > MAX_E_TEFF,
    "UNC_LOGG": lambda c, e: c["e_logg"] > MAX_E_LOGG,
    "UNC_MH": lambda c, e: c["e_m_h"] > MAX_E_M_H,
    "UNC_MASS": lambda c, e: c["e_mass"] > MAX_MASS_ERROR * c["mass"],
    "UNC_AGE": lambda c, e: c["e_age"] > MAX_AGE_ERROR * c["age"],
    "AGE_LIMIT": _age_limit,
    "OOD_LATENT": lambda c, e: c["ood_mahal"] > e.latent_limit,
    "SPEC_CHI2": lambda c, e: c["xp_chi2_red"] > max(MAX_CHI2, e.chi2_limit),
    "IN_TRAINING": lambda c, e: c["in_training"],
    "NSS_OR_VAR": lambda c, e: e.multiple_or_variable,
    "INFER_FAIL": lambda c, e: e.failed,
    "XP_PHOTOMETRY": lambda c, e: e.synthetic,
    "NONLINEAR": lambda c, e: e.nonlinear,
}
"""The rule of each flag, from the catalog's columns and the evidence."""
