"""From spectra to rows of the catalog: pure, no files, no Dask.

    spectra, companion ─ features ─ tokens ─ predict ─ answers ─ rows ─ the catalog's columns

Each step is a method, so that whoever drives the engine may time them or let them overlap.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.catalog import quality
from catalogproc.contract import load_contract
from catalogproc.errors import JobError
from catalogproc.features import astrometry, dust
from catalogproc.features import tokens as features
from catalogproc.features.dustmap import reddened
from catalogproc.vocabulary import BANDS

if TYPE_CHECKING:
    from catalogproc.features.dustmap import DustMap
    from catalogproc.features.tokens import Tokens
    from catalogproc.job import Job
    from catalogproc.network.bundle import Bundle
    from catalogproc.network.predictor import Prediction

Float = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]

PIECE = 8192  # rows worked on at a time: bounds memory, whatever the table's length

LABEL_COLUMNS = {
    "teff": "teff",
    "logg": "logg",
    "m_h": "m_h",
    "mass": "mass",
    "log_age": "log_age",
    "logebv": "ln_ebv",
    "g_fakemag": "g_fakemag",
}
"""The catalog's column of each label; its 1 sigma error is in the column ``e_<name>``."""

GYR = 9.0  # log10 of a Gyr in years


class Engine:
    """A trained model and a job on one device: spectra in, rows of the catalog out.

    Parameters
    ----------
    bundle, job
        The trained model, and what is asked of it.
    device
        Where the network runs, in torch's words.
    run_id
        What the catalog's column of that name says; by default the first 8 hexadecimal
        digits of the SHA-256 of the job's and the model's hash.
    dust_map
        The map that ``job.dust`` names.

    Raises
    ------
    JobError
        A label that the model or the catalog does not have, an input that cannot be had, or a
        dust map that is read and was not given.

    Notes
    -----
    The same star gets the same numbers whatever its batch, its order and its chunk: bit for
    bit in everything but the network's answers, which agree to the rounding of float32, and
    to 1e-4 of their own sigma (see network.predictor).
    """

    def __init__(
        self,
        bundle: Bundle,
        job: Job,
        device: str = "cpu",
        run_id: str = "",
        dust_map: DustMap | None = None,
    ) -> None:
        from catalogproc.network.predictor import Predictor

        check_job(job, bundle)
        if job.dust and dust_map is None:
            raise JobError("the job's dust map was not given", wanted=job.dust, where="job.dust")
        self.dust_map = dust_map if job.dust else None
        self.bundle = bundle
        self.job = job
        self.device = device
        self.model_id = bundle.hash[:8]
        self.run_id = run_id or hashlib.sha256(f"{job.hash}{bundle.hash}".encode()).hexdigest()[:8]
        self._predictor = Predictor(bundle, device)

    def self_check(self) -> None:
        """Raise BundleError unless the device gives the bundle's stored answers."""
        self._predictor.self_check()

    def process(
        self, spectra: pa.RecordBatch | pa.Table, companion: pa.Table | None = None
    ) -> pa.Table:
        """Rows of the contract catalog for screened spectra, one each, in their order.

        Parameters
        ----------
        spectra
            N rows of the contract xp_continuous that :func:`~catalogproc.catalog.screen.screen`
            found good.
        companion
            N rows of the contract gaia_source, the same stars row by row; None where the
            run has no such table.

        A star of which the model can read nothing at all gets the model's prior, flagged
        NO_XP and FEW_TOKENS.
        """
        pieces = []
        for start in range(0, max(1, spectra.num_rows), PIECE):
            piece = spectra.slice(start, PIECE)
            beside = None if companion is None else companion.slice(start, PIECE)
            tokens = self.features(piece, beside)
            pieces.append(self.rows(piece.column("source_id"), tokens, self.predict(tokens)))
        return pa.concat_tables(pieces)

    def features(
        self, spectra: pa.RecordBatch | pa.Table, companion: pa.Table | None = None
    ) -> Tokens:
        """What the model reads of each star."""
        vocabulary = self.bundle.vocabulary
        found = features.tokens(spectra, companion, vocabulary, self.job)
        if self.dust_map is None:
            return found
        return reddened(found, self.dust_map, vocabulary, self.job)

    def predict(self, tokens: Tokens) -> Prediction:
        """What the model answers for each star."""
        return self._predictor.predict(tokens.values, self.job.labels)

    def rows(
        self, source_ids: pa.Array | pa.ChunkedArray, tokens: Tokens, prediction: Prediction
    ) -> pa.Table:
        """The catalog's columns from tokens and answers."""
        # Answers may be absurd far from the training stars; they become NaN, not warnings.
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            columns = observed(tokens)
            columns |= answers(prediction)
            columns |= evolution(columns) | reddening(columns)
            columns |= luminosity(columns, tokens, self._independent(tokens))
            columns["tgt_box_nout"] = self._outside_box(tokens)
            columns = {name: _storable(name, values) for name, values in columns.items()}
            flags = quality.flags(columns, self._evidence(tokens, prediction))
        count = len(tokens)
        given = columns | {
            "source_id": source_ids,
            "quality_flags": flags,
            "good_params": quality.good_params(flags),
            "good_mass_age": quality.good_mass_age(flags),
            "model_id": pa.repeat(pa.scalar(self.model_id), count),
            "run_id": pa.repeat(pa.scalar(self.run_id), count),
        }
        return load_contract("catalog").assemble(given, count)

    def _independent(self, tokens: Tokens) -> NDArray[np.bool_]:
        """Stars whose parallax the model has not read (N,)."""
        # The parallax says how far into the dust a star is: ln E(B-V) of a map has read it.
        independent = ~tokens.ebv_by_parallax
        if "g_fakemag" in self.job.inputs:
            independent &= np.isnan(tokens.values[:, self.bundle.vocabulary.column("g_fakemag")])
        return independent

    def _outside_box(self, tokens: Tokens) -> NDArray[np.int16]:
        """How many of the coefficients that were read lie outside the training box (N,)."""
        domain, vocabulary = self.bundle.domain, self.bundle.vocabulary
        outside = np.zeros(len(tokens), dtype=np.int16)
        for band in BANDS:
            at = vocabulary.coefficient_columns(band)[: self.job.coefficients]
            read = tokens.values[:, at]
            # NaN, an absent coefficient or an unknown limit, is outside nothing.
            outside += ((read < domain.low[at]) | (read > domain.high[at])).sum(axis=1, dtype="i2")
        return outside

    def _evidence(self, tokens: Tokens, prediction: Prediction) -> quality.Evidence:
        vocabulary, domain = self.bundle.vocabulary, self.bundle.domain
        at = {label: vocabulary.column(label) for label in LABEL_COLUMNS if label in vocabulary}
        finite = (np.isfinite(prediction.mean) & np.isfinite(prediction.sigma)).all(axis=1)
        return quality.Evidence(
            bp=tokens.bp,
            rp=tokens.rp,
            excess_factor=tokens.excess_factor,
            blended_fraction=tokens.blended_fraction,
            params_solved=tokens.params_solved,
            multiple_or_variable=tokens.multiple_or_variable,
            synthetic=tokens.synthetic,
            failed=np.logical_not(finite),
            limits={
                LABEL_COLUMNS[label]: (float(domain.low[i]), float(domain.high[i]))
                for label, i in at.items()
            },
        )


def check_job(job: Job, bundle: Bundle) -> None:
    """Raise JobError unless the model can answer the job, and the catalog hold the answers."""
    wanted = [label for label in LABEL_COLUMNS if label in bundle.requestable]
    unknown = [label for label in job.labels if label not in wanted]
    if unknown:
        raise JobError(
            "labels that this model and the catalog do not have",
            wanted=" | ".join(wanted),
            found=", ".join(unknown),
            where=f"job.labels, model {bundle.name}",
        )
    features.check_inputs(job, bundle.vocabulary)


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


def answers(prediction: Prediction) -> Columns:
    """The columns that the model answers as they stand; NaN where it was not asked."""
    columns: Columns = {}
    unasked = np.full(len(prediction.mean), np.nan)
    for label, name in LABEL_COLUMNS.items():
        if label in prediction.labels:
            at = prediction.labels.index(label)
            columns[name] = prediction.mean[:, at].astype(np.float64)
            columns[f"e_{name}"] = prediction.sigma[:, at].astype(np.float64)
        else:
            columns[name] = columns[f"e_{name}"] = unasked
    return columns


def evolution(columns: Columns) -> Columns:
    """Percentiles of the mass, and the age in Gyr, from ``mass`` and ``log_age``.

    The model's mass is Gaussian: its percentiles are mass ± e_mass, none below zero, and
    unknown where the mass itself is not positive. Its log_age is, so the age's percentiles
    are 10^(log_age ± e_log_age) and ``age`` is its median; ``e_age`` is the first order,
    ln(10) age e_log_age (Zhang et al. 2026).
    """
    mass, e_mass = columns["mass"], columns["e_mass"]
    log_age, e_log_age = columns["log_age"], columns["e_log_age"]
    positive = np.where(mass > 0, mass, np.nan)
    age = 10.0 ** (log_age - GYR)
    return {
        "mass_16": np.maximum(positive - e_mass, 0.0),
        "mass_84": positive + e_mass,
        "age": age,
        "e_age": np.log(10.0) * age * e_log_age,
        "age_16": 10.0 ** (log_age - e_log_age - GYR),
        "age_84": 10.0 ** (log_age + e_log_age - GYR),
    }


def reddening(columns: Columns) -> Columns:
    """E(B-V) on both scales and A_V, mag, from ``ln_ebv``, in which the model is Gaussian."""
    ln_ebv, error = columns["ln_ebv"], columns["e_ln_ebv"]
    ebv = np.exp(ln_ebv)
    return {
        "ebv": ebv,
        "ebv_16": np.exp(ln_ebv - error),
        "ebv_84": np.exp(ln_ebv + error),
        "ebv_true": dust.true_ebv(ebv),
        "av": dust.v_extinction(ebv),
    }


def luminosity(columns: Columns, tokens: Tokens, independent: NDArray[np.bool_]) -> Columns:
    """Magnitudes, distances and parallax that follow from the model's pseudo-luminosity.

    Only where the model has not read the parallax (``independent``) is its answer compared
    with it, and combined with it where the parallax is usable.
    """
    f, sigma = columns["g_fakemag"], columns["e_g_fakemag"]
    seen, e_seen = tokens.pseudo_luminosity, tokens.e_pseudo_luminosity
    mg_obs, _ = astrometry.absolute_magnitude(f, sigma)
    mg0 = mg_obs - dust.g_extinction(columns["ebv"], columns["teff"])
    near, dist, far = astrometry.distance(f, sigma, tokens.g_mag)
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


def _storable(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """In the type of the catalog's column; floats that are not finite are not known.

    Done before the flags are set, so that they follow from what a reader of the file sees.
    """
    stored = values.astype(load_contract("catalog")[name].type, copy=False)
    if not np.issubdtype(stored.dtype, np.floating):
        return stored
    return np.where(np.isfinite(stored), stored, stored.dtype.type(np.nan))
