"""From spectra to rows of the catalog: pure, no files, no Dask.

    spectra, companion ─ features ─ tokens ─ predict ─ answers ─ rows ─ the catalog's columns

Each step is a method, so that whoever drives the engine may time them or let them overlap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.contract import load_contract
from catalogproc.errors import JobError
from catalogproc.features import tokens as features
from catalogproc.features.dust_map import reddened
from catalogproc.features.input_errors import input_noise
from catalogproc.inference import quality_flags
from catalogproc.inference.catalog_columns import (
    LABEL_COLUMNS,
    answers,
    evolution,
    luminosity,
    observed,
    reddening,
)
from catalogproc.inference.domain_checks import beyond_box, checkable, spectrum_chi2
from catalogproc.inference.table_prediction import propagate
from catalogproc.io.hashes import sha256

if TYPE_CHECKING:
    from catalogproc.features.dust_map import DustMap
    from catalogproc.features.tokens import Tokens
    from catalogproc.job import Job
    from catalogproc.network.bundle import Bundle
    from catalogproc.network.error_propagation import Propagated
    from catalogproc.network.predictor import Prediction

__all__ = ["LABEL_COLUMNS", "Answer", "Engine", "check_job"]

PIECE = 8192  # rows worked on at a time: bounds memory, whatever the table's length


@dataclass(frozen=True)
class Answer:
    """What the model says of N stars.

    ``propagated`` is what the errors of what was read do to the answers, and ``published``
    the same of errors as published, to first order; both None where the job does not ask for
    it. ``nonlinear`` (N,) are stars whose errors the two routes give differently, if both
    were taken; ``chi2`` (N,) is how well some coefficients were predicted from the others,
    NaN where that was not asked.
    """

    prediction: Prediction
    propagated: Propagated | None
    published: Propagated | None
    nonlinear: NDArray[np.bool_]
    chi2: NDArray[np.float64]


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
        self.run_id = run_id or sha256(f"{job.hash}{bundle.hash}".encode())[:8]
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
            N rows of the contract xp_continuous that
            :func:`~catalogproc.inference.screening.screen` found good.
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

    def predict(self, tokens: Tokens) -> Answer:
        """What the model answers for each star, and what the errors of what it read do to it."""
        found = propagate(self._predictor, tokens, self.job.labels, self.job)
        return Answer(
            found.prediction, found.propagated, found.published, found.nonlinear,
            self._chi2(tokens),
        )  # fmt: skip

    def _chi2(self, tokens: Tokens) -> NDArray[np.float64]:
        if not self.job.check_spectrum:
            return np.full(len(tokens), np.nan)
        # Inflated whatever the job says: the limit was found so.
        inflated = replace(self.job, inflate_errors=True)
        noise = input_noise(tokens, self.bundle.vocabulary, inflated)
        return spectrum_chi2(self._predictor, tokens.values, noise.errors)

    def rows(
        self, source_ids: pa.Array | pa.ChunkedArray, tokens: Tokens, answer: Answer
    ) -> pa.Table:
        """The catalog's columns from tokens and answers."""
        calibration = self.bundle.calibration.by_label
        beyond = beyond_box(self.bundle, tokens.values, self.job.coefficients)
        # Answers may be absurd far from the training stars; they become NaN, not warnings.
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            columns = observed(tokens)
            columns |= answers(
                answer.prediction, answer.propagated, answer.published, calibration, columns
            )
            columns |= evolution(columns, calibration) | reddening(columns, calibration)
            columns |= luminosity(columns, tokens, self._independent(tokens), calibration)
            columns |= {
                "tgt_box_nout": (beyond > 0).sum(axis=1, dtype=np.int16),
                "ood_mahal": np.asarray(answer.prediction.distance, dtype=np.float64),
                "xp_chi2_red": answer.chi2,
                "in_training": self.bundle.calibration.in_training(tokens.source_id),
            }
            columns = {name: _storable(name, values) for name, values in columns.items()}
            flags = quality_flags.flags(columns, self._evidence(tokens, answer, beyond))
        count = len(tokens)
        given = columns | {
            "source_id": source_ids,
            "quality_flags": flags,
            "good_params": quality_flags.good_params(flags),
            "good_mass_age": quality_flags.good_mass_age(flags),
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

    def _evidence(
        self, tokens: Tokens, answer: Answer, beyond: NDArray[np.float64]
    ) -> quality_flags.Evidence:
        prediction = answer.prediction
        vocabulary, domain = self.bundle.vocabulary, self.bundle.domain
        at = {label: vocabulary.column(label) for label in LABEL_COLUMNS if label in vocabulary}
        finite = (np.isfinite(prediction.mean) & np.isfinite(prediction.sigma)).all(axis=1)
        if "mass" in prediction.labels:
            finite &= prediction.mean[:, prediction.labels.index("mass")] > 0
        reliability = self.bundle.calibration
        return quality_flags.Evidence(
            bp=tokens.bp,
            rp=tokens.rp,
            excess_factor=tokens.excess_factor,
            blended_fraction=tokens.blended_fraction,
            params_solved=tokens.params_solved,
            multiple_or_variable=tokens.multiple_or_variable,
            synthetic=tokens.synthetic,
            failed=np.logical_not(finite),
            nonlinear=answer.nonlinear,
            latent_limit=reliability.latent.limit if reliability.latent else np.inf,
            beyond_box=beyond.max(axis=1, initial=0.0),
            margin=reliability.margin,
            chi2_limit=reliability.chi2,
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
    if job.check_spectrum and not checkable(bundle):
        raise JobError(
            "the model was not trained to predict coefficients from each other",
            advice="set check_spectrum = false in the job", where=f"model {bundle.name}",
        )  # fmt: skip


def _storable(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """In the type of the catalog's column; floats that are not finite are not known.

    Done before the flags are set, so that they follow from what a reader of the file sees.
    """
    stored = values.astype(load_contract("catalog")[name].type, copy=False)
    if not np.issubdtype(stored.dtype, np.floating):
        return stored
    known = np.isfinite(stored)
    return stored if known.all() else np.where(known, stored, stored.dtype.type(np.nan))
