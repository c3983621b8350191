"""Tokens from screened spectra and gaia_source columns.

``tokens`` is used wherever spectra are read, in inference and in evaluation; ``from_stars`` is
its second half, also for simulated stars. The numbers of a star do not depend on the other
stars of its batch, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.errors import JobError
from catalogproc.features import astrometry, extinction, parallax
from catalogproc.features.coefficients import Coefficients
from catalogproc.features.dense_tokens import DenseTokens
from catalogproc.features.star_batch import StarBatch, read
from catalogproc.features.star_photometry import (
    blended_fraction,
    star_photometry,
    tmass_colours,
)
from catalogproc.job import Job
from catalogproc.network.star_tokens import StarTokens
from catalogproc.release import Release
from catalogproc.vocabulary import BANDS, Vocabulary

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]

PHOTOMETRY = ("phot_g_mean_flux", "phot_g_mean_mag")
"""Columns of gaia_source that give G, which scales coefficients and parallaxes."""

SOURCES = {
    "bprp": (
        "phot_bp_mean_mag", "phot_rp_mean_mag",
        "phot_bp_mean_flux_over_error", "phot_rp_mean_flux_over_error",
    ),
    "jh": ("j_m", "j_msigcom", "h_m", "h_msigcom", "ph_qual"),
    "jk": ("j_m", "j_msigcom", "ks_m", "ks_msigcom", "ph_qual"),
    "logebv": ("ebv", "e_ln_ebv"),
    "g_fakemag": (*parallax.SOURCES, "ruwe"),
}  # fmt: skip
"""Columns of gaia_source that each token is made of, besides PHOTOMETRY."""

PARALLAX_TOKENS = ("g_fakemag",)
"""Tokens that are always made of the parallax."""

READABLE = tuple(SOURCES)
"""Tokens, besides the coefficients, that are made from spectra and gaia_source columns."""


@dataclass(frozen=True)
class Tokens:
    """Tokens of N stars, and the quantities that they were made from.

    Arrays are (N,) unless stated otherwise; NaN is unknown.

    Attributes
    ----------
    values, errors
        Dense (N, V), in the tokens' physical units; NaN is an absent token, or an unknown
        error.
    g_mag, g_flux, bp_rp, e_bp_rp
        Photometry used: mag, electrons per second, mag, mag.
    synthetic
        G or BP - RP (or both) were synthesised from the spectrum, as none was given.
    synthetic_g
        G was.
    parallax_zp, parallax_zpc, e_parallax
        Zero-point, corrected parallax and its error, mas.
    parallax_usable
        The parallax passes ``astrometry.parallax_usable``.
    zero_point_assumed, zero_point_published
        The zero-point is a mean one, as inputs of the relation were not given; is that of the
        release.
    zero_point_relation
        The zero-point by Lindegren et al. (2021), used or not, mas.
    pseudo_luminosity, e_pseudo_luminosity
        From the parallax and G as observed, usable or not.
    n_bp_relevant, n_rp_relevant
        Number of relevant coefficients; 0 where the band is missing.
    bp, rp
        At least one coefficient of the band is a token.
    has_tmass
        The 2MASS colours are tokens.
    ra, dec, l, b
        Position, degrees; healpix29 is its nested HEALPix pixel of order 29, or -1.
    excess_factor, blended_fraction
        phot_bp_rp_excess_factor; blended transits over all BP and RP transits.
    multiple_or_variable
        Gaia lists the star as non-single or variable.
    e_j
        Error of the J magnitude, which both 2MASS colours share.
    correlations
        By band, where read: packed as published (N, n(n-1)/2).
    published_errors
        By band: errors of the coefficients as published (N, n), electrons per second.
    source_id
        Gaia source identifier; the row number where none is given.
    release
        The Gaia release of the spectra.
    by_parallax
        Tokens (N, V) that are made of the parallax: the pseudo-luminosity, and ln E(B-V) of a dust
        map at the distance of the parallax (dust_map.py).
    """

    values: Float
    errors: Float
    g_mag: Float
    g_flux: Float
    bp_rp: Float
    e_bp_rp: Float
    synthetic: Mask
    synthetic_g: Mask
    parallax_zp: Float
    parallax_zpc: Float
    e_parallax: Float
    parallax_usable: Mask
    zero_point_assumed: Mask
    zero_point_published: Mask
    zero_point_relation: Float
    pseudo_luminosity: Float
    e_pseudo_luminosity: Float
    ruwe: Float
    n_bp_relevant: NDArray[np.int16]
    n_rp_relevant: NDArray[np.int16]
    bp: Mask
    rp: Mask
    has_tmass: Mask
    ra: Float
    dec: Float
    l: Float  # noqa: E741 (galactic longitude has no other name)
    b: Float
    healpix29: NDArray[np.int64]
    excess_factor: Float
    blended_fraction: Float
    multiple_or_variable: Mask
    by_parallax: Mask
    e_j: Float
    correlations: Mapping[str, NDArray[np.floating]]
    published_errors: Mapping[str, NDArray[np.floating]]
    source_id: NDArray[np.int64]
    release: Release

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, which: slice) -> Tokens:
        """Return the tokens of some stars.

        Parameters
        ----------
        which
            Which of the N stars.
        """
        found: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                found[name] = value[which]
            elif isinstance(value, Mapping):
                found[name] = {key: array[which] for key, array in value.items()}
        return replace(self, **found)

    @property
    def network_inputs(self) -> StarTokens:
        """The values and their errors, as a model reads them."""
        return StarTokens(self.values, self.errors)


def reads_parallax(job: Job) -> bool:
    """Return whether a job makes tokens of the parallax.

    Parameters
    ----------
    job
        Its inputs and dust map decide.
    """
    return bool(job.dust) or not set(PARALLAX_TOKENS).isdisjoint(job.inputs)


def check_inputs(job: Job, vocabulary: Vocabulary) -> None:
    """Raise JobError for an input that cannot be made from files, or that the model lacks.

    Parameters
    ----------
    job
        Its ``inputs`` are checked.
    vocabulary
        The model's tokens.
    """
    available = [name for name in READABLE if name in vocabulary]
    unknown = [name for name in job.inputs if name not in available]
    if unknown:
        raise JobError(
            "inputs that cannot be read from spectra and gaia_source",
            wanted=" | ".join(available), found=", ".join(unknown), where="job.inputs",
        )  # fmt: skip


def tokens(
    spectra: pa.RecordBatch | pa.Table,
    auxiliary: pa.Table | None,
    vocabulary: Vocabulary,
    job: Job,
) -> Tokens:
    """Make the tokens of a batch of screened spectra.

    Parameters
    ----------
    spectra
        Columns of the contract xp_continuous, lists of the vocabulary's lengths.
    auxiliary
        Columns of the contract gaia_source, row by row the stars of ``spectra``; None where
        the run has no such table.
    vocabulary
        The model's tokens.
    job
        Which tokens are made.

    Raises
    ------
    JobError
        An input of the job cannot be made.
    ReleaseError
        The number of coefficients is not the vocabulary's; or there is no photometry, and
        the pass-bands of the release are not known.
    CountError
        The auxiliary rows are not those of the spectra.

    Notes
    -----
    Made are the tokens in ``job.inputs`` that are known, and of each band the first
    ``job.coefficients`` that are relevant (irrelevant ones too without
    ``job.mask_irrelevant``). A coefficient of exactly zero is absent (Leung & Bovy 2024).
    A vocabulary of the canonical basis has canonical coefficients (canonical.py), those that are
    relevant by its own rule, and none that are nearly pure prior.
    G and BP - RP come from gaia_source where given, else from the spectrum, star by star.
    """
    return from_stars(read(spectra, auxiliary, vocabulary), vocabulary, job)


def from_stars(stars: StarBatch, vocabulary: Vocabulary, job: Job) -> Tokens:
    """Make the tokens of stars; see :func:`tokens`.

    Parameters
    ----------
    stars
        N stars.
    vocabulary
        The model's tokens.
    job
        Which tokens are made.
    """
    check_inputs(job, vocabulary)
    size = len(stars)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        coefficients = Coefficients.of(stars, vocabulary)
        phot = star_photometry(stars, coefficients)
        plx = parallax.parallaxes(stars, phot.g_mag)
        f, e_f = astrometry.pseudo_luminosity(plx.corrected, plx.error, phot.g_mag)
        ruwe = stars.column("ruwe")
        usable = astrometry.parallax_usable(plx.zero_point, plx.error, ruwe) & np.isfinite(f)
        jh, jk = tmass_colours(stars)
        inputs = {"bprp": (phot.bp_rp, phot.e_bp_rp), "jh": jh, "jk": jk}
        inputs["logebv"] = extinction.ln_ebv(stars.column("ebv")), stars.column("e_ln_ebv")
        inputs["g_fakemag"] = np.where(usable, f, np.nan), e_f
        dense = DenseTokens(vocabulary, *np.full((2, size, len(vocabulary)), np.nan))
        for name in job.inputs:
            dense.set_input(name, *inputs[name])
        present = {band: dense.set_spectrum(band, coefficients, phot.g_flux, job) for band in BANDS}
    ra, dec, l, b = _position(stars)  # noqa: E741
    return Tokens(
        values=dense.values, errors=dense.errors,
        **vars(phot),
        parallax_zp=plx.zero_point, parallax_zpc=plx.corrected, e_parallax=plx.error,
        parallax_usable=usable, zero_point_assumed=plx.assumed,
        zero_point_published=plx.published, zero_point_relation=plx.relation,
        pseudo_luminosity=f, e_pseudo_luminosity=e_f, ruwe=ruwe,
        n_bp_relevant=coefficients.n_relevant["bp"].astype(np.int16), bp=present["bp"],
        n_rp_relevant=coefficients.n_relevant["rp"].astype(np.int16), rp=present["rp"],
        has_tmass=_has_tmass(job, jh[0], jk[0]),
        ra=ra, dec=dec, l=l, b=b, healpix29=astrometry.healpix(ra, dec),
        excess_factor=stars.column("phot_bp_rp_excess_factor"),
        blended_fraction=blended_fraction(stars),
        multiple_or_variable=_or_false(stars.multiple_or_variable, size),
        by_parallax=dense.present(PARALLAX_TOKENS),
        e_j=stars.column("j_msigcom"), correlations=stars.correlations,
        published_errors=stars.errors,
        source_id=np.arange(size) if stars.source_id is None else stars.source_id,
        release=stars.release,
    )  # fmt: skip


def _has_tmass(job: Job, jh: Float, jk: Float) -> Mask:
    """Return which stars (N,) have both colours; none where the job reads neither."""
    return bool({"jh", "jk"} & set(job.inputs)) & np.isfinite(jh) & np.isfinite(jk)


def _position(stars: StarBatch) -> tuple[Float, Float, Float, Float]:
    """Return ra, dec, l, b in degrees (N,); l and b are computed where they are not given."""
    ra, dec, l, b = (stars.column(name) for name in ("ra", "dec", "l", "b"))  # noqa: E741
    rows = (np.isnan(l) | np.isnan(b)) & np.isfinite(ra) & np.isfinite(dec)
    if rows.any():
        l, b = l.copy(), b.copy()  # noqa: E741
        l[rows], b[rows] = astrometry.galactic(ra[rows], dec[rows])
    return ra, dec, l, b


def _or_false(mask: Mask | None, size: int) -> Mask:
    return np.zeros(size, dtype=bool) if mask is None else mask
