"""Photometry of each star: as given, or synthesised from its spectrum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalogproc.features import photometry, spectra
from catalogproc.features.coefficients import Coefficients
from catalogproc.features.star_batch import StarBatch
from catalogproc.vocabulary import BANDS

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class StarPhotometry:
    """Photometry of N stars; NaN is unknown.

    Attributes
    ----------
    g_mag, g_flux
        G (N,), mag, and its flux in electrons per second of the release in whose basis the
        model's coefficients are: these are divided by it.
    bp_rp, e_bp_rp
        BP - RP and its error (N,), mag.
    synthetic
        G or BP - RP (or both) were synthesised from the spectrum, as none was given (N,).
    synthetic_g
        G was (N,).
    """

    g_mag: Float
    g_flux: Float
    bp_rp: Float
    e_bp_rp: Float
    synthetic: Mask
    synthetic_g: Mask


def star_photometry(stars: StarBatch, read: Coefficients) -> StarPhotometry:
    """Return the photometry that is given, or else synthesised from the spectrum, star by star.

    Parameters
    ----------
    stars
        N stars.
    read
        Their coefficients.

    Raises
    ------
    ReleaseError
        There is no photometry, and the pass-bands of the release are not known.
    """
    flux, g_mag = stars.column("phot_g_mean_flux"), stars.column("phot_g_mean_mag")
    release = stars.release
    g_zero_point = release.magnitude("G").zero_point
    own_zero_point = read.release.magnitude("G").zero_point
    scale = 10.0 ** (0.4 * (own_zero_point - g_zero_point))  # exactly 1 for the same release
    g_flux = spectra.g_flux(g_mag, own_zero_point, scale * flux)
    g_mag = np.where(np.isfinite(g_mag), g_mag, spectra.g_magnitude(flux, g_zero_point))
    bp_rp = stars.column("phot_bp_mean_mag") - stars.column("phot_rp_mean_mag")
    e_bp_rp = photometry.bp_rp_error(
        stars.column("phot_bp_mean_flux_over_error"),
        stars.column("phot_rp_mean_flux_over_error"),
        release,
    )
    no_g, no_colour = ~np.isfinite(g_flux), ~np.isfinite(bp_rp)
    e_bp_rp[no_colour] = np.nan
    lacking = no_g | no_colour
    # Of canonical coefficients, so that every kind of spectrum gives the same magnitudes.
    bp, rp = (read.values[band] for band in BANDS)
    # Without any gaia_source columns a release without pass-bands is refused; with some, one star
    # that lacks photometry must not fail all others.
    if (stars.has_spectra and lacking.any()) and (
        not stars.auxiliary or read.release.design is not None
    ):
        rows: slice | Mask = slice(None) if lacking.all() else lacking
        made = photometry.synthetic_photometry(
            bp[rows], rp[rows], read.release, (read.errors["bp"][rows], read.errors["rp"][rows])
        )
        g_mag[no_g] = made.g[no_g[rows]]
        g_flux[no_g] = spectra.g_flux(made.g, own_zero_point)[no_g[rows]]
        bp_rp[no_colour] = (made.bp - made.rp)[no_colour[rows]]
        error = photometry.bp_rp_error(
            photometry.MAGNITUDE_PER_RELATIVE / made.e_bp,
            photometry.MAGNITUDE_PER_RELATIVE / made.e_rp,
            read.release,
        )
        e_bp_rp[no_colour] = error[no_colour[rows]]
    return StarPhotometry(g_mag, g_flux, bp_rp, e_bp_rp, synthetic=lacking, synthetic_g=no_g)


def tmass_colours(stars: StarBatch) -> tuple[tuple[Float, Float], tuple[Float, Float]]:
    """Return J - H and J - Ks, each with its error (N,), mag.

    Parameters
    ----------
    stars
        N stars.
    """
    good = np.ones(len(stars), dtype=bool) if stars.tmass_good is None else stars.tmass_good
    j, e_j, h, e_h, k, e_k = (
        photometry.tmass_magnitude(stars.column(name), good)
        for name in ("j_m", "j_msigcom", "h_m", "h_msigcom", "ks_m", "ks_msigcom")
    )
    return photometry.colour(j, h, e_j, e_h), photometry.colour(j, k, e_j, e_k)


def blended_fraction(stars: StarBatch) -> Float:
    """Return the share of the BP and RP transits that are blended (N,); NaN without any.

    Parameters
    ----------
    stars
        N stars.
    """
    transits = stars.column("phot_bp_n_obs") + stars.column("phot_rp_n_obs")
    blended = stars.column("phot_bp_n_blended_transits") + stars.column(
        "phot_rp_n_blended_transits"
    )
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return np.asarray(blended / np.where(transits > 0, transits, np.nan))
