"""From spectra to rows of the catalog, without files and without Dask.

    spectra, gaia_source ─ features ─ tokens ─ predict ─ output ─ to_catalog ─ catalog rows

Each step is a method, so that the caller can time the steps or run them concurrently.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.contract import load_contract
from catalogproc.errors import JobError
from catalogproc.features import tokens as features
from catalogproc.features.bridge import read_bridge
from catalogproc.features.canonical_tables import operators
from catalogproc.features.dust_map import reddened
from catalogproc.features.input_errors import error_factors, input_noise
from catalogproc.inference import quality_flags
from catalogproc.inference.catalog_columns import (
    LABEL_COLUMNS,
    combined_distance,
    evolution,
    label_columns,
    label_distributions,
    luminosity,
    observed,
    predicted_labels,
    reddening,
    requested_labels,
    without_parallax,
)
from catalogproc.inference.domain_checks import beyond_box, checkable, spectrum_chi2
from catalogproc.inference.input_flags import in_teacher_domain, input_flags
from catalogproc.inference.label_distribution import LabelDistribution, PropagatedPrediction
from catalogproc.inference.posterior import posterior_rows
from catalogproc.inference.table_prediction import propagate
from catalogproc.io.hashes import sha256

if TYPE_CHECKING:
    from catalogproc.features.dust_map import DustMap
    from catalogproc.features.tokens import Tokens
    from catalogproc.job import Job
    from catalogproc.network.bundle import Bundle

__all__ = ["LABEL_COLUMNS", "Engine", "ModelOutput", "check_job"]

PIECE = 8192  # rows processed at a time: bounds memory, whatever the table's length


@dataclass(frozen=True)
class ModelOutput(PropagatedPrediction):
    """Predictions for N stars, with what else was computed of them.

    Attributes
    ----------
    chi2
        Reduced chi-square of the held-out coefficients (N,), NaN if the job does not check it.
    """

    chi2: NDArray[np.float64] = field(kw_only=True)


class Engine:
    """A trained model and a job on one device: from spectra to rows of the catalog.

    Parameters
    ----------
    bundle, job
        The trained model, and what to do with it.
    device
        Where the network runs, as torch names it.
    run_id
        The content of the catalog's column ``run_id``; by default the first 8 hexadecimal
        digits of the SHA-256 of the job's and the model's hash.
    dust_map
        The map that ``job.dust`` names.

    Raises
    ------
    JobError
        A label that the model or the catalog does not have, an input that cannot be computed,
        or a dust map that the job needs and that is missing.

    Notes
    -----
    The same star gets the same numbers in any batch, order and chunk: bit for bit, except for
    the network's predictions, which agree to the rounding of float32 and to 1e-4 of their
    sigma (see network.predictor).
    """

    def __init__(
        self,
        bundle: Bundle,
        job: Job,
        device: str = "cpu",
        run_id: str = "",
        dust_map: DustMap | None = None,
    ) -> None:
        from catalogproc.network.precision import choose_precision

        check_job(job, bundle)
        if job.dust and dust_map is None:
            raise JobError("the job's dust map is missing", wanted=job.dust, where="job.dust")
        self.dust_map = dust_map if job.dust else None
        self.bundle = bundle
        self.job = job
        self.labels = requested_labels(job, bundle)
        self.device = device
        self.model_id = bundle.hash[:8]
        self.run_id = run_id or sha256(f"{job.hash}{bundle.hash}".encode())[:8]
        self._use(choose_precision(job.precision, bundle.precision_check, device))

    def _use(self, precision: str) -> None:
        from catalogproc.network.predictor import Predictor

        self._predictor = Predictor(self.bundle, self.device, precision)

    @property
    def precision(self) -> str:
        """The number type in which the network multiplies, as receipts state it."""
        return self._predictor.precision

    def in_precision(self, precision: str) -> Engine:
        """Return a copy that multiplies in another precision.

        Parameters
        ----------
        precision
            One of :data:`~catalogproc.network.precision.PRECISIONS`.
        """
        other = copy.copy(self)
        other._use(precision)
        return other

    def self_check(self) -> None:
        """Raise BundleError unless the device reproduces the bundle's stored predictions."""
        self._predictor.self_check()

    def process(
        self, spectra: pa.RecordBatch | pa.Table, gaia_source: pa.Table | None = None
    ) -> pa.Table:
        """Return rows of the contract catalog, one for each spectrum, in their order.

        A star without any token gets the model's prior, flagged NO_XP and FEW_TOKENS.

        Parameters
        ----------
        spectra
            N rows of the contract xp_continuous that
            :func:`~catalogproc.inference.screening.screen` accepted.
        gaia_source
            N rows of the contract gaia_source, the same stars row by row; None if the run has
            no such table.
        """
        pieces = []
        for start in range(0, max(1, spectra.num_rows), PIECE):
            piece = spectra.slice(start, PIECE)
            matched = None if gaia_source is None else gaia_source.slice(start, PIECE)
            tokens = self.features(piece, matched)
            output = self.predict(tokens)
            pieces.append(self.to_catalog(piece.column("source_id"), tokens, output))
        return pa.concat_tables(pieces)

    def features(
        self, spectra: pa.RecordBatch | pa.Table, gaia_source: pa.Table | None = None
    ) -> Tokens:
        """Return the inputs of the model for each star.

        Parameters
        ----------
        spectra, gaia_source
            As for :meth:`process`.
        """
        vocabulary = self.bundle.vocabulary
        found = features.tokens(spectra, gaia_source, vocabulary, self.job)
        if self.dust_map is None:
            return found
        return reddened(found, self.dust_map, vocabulary, self.job)

    def predict(self, tokens: Tokens) -> ModelOutput:
        """Predict the job's labels, with their uncertainties from input errors.

        Parameters
        ----------
        tokens
            The inputs of N stars, as :meth:`features` returns them.
        """
        found = propagate(self._predictor, tokens, self.labels, self.job)
        return ModelOutput(**vars(found), chi2=self._chi2(tokens))

    def _chi2(self, tokens: Tokens) -> NDArray[np.float64]:
        if not self.job.check_spectrum:
            return np.full(len(tokens), np.nan)
        # Always inflated, because the limit was measured with inflated errors.
        inflated = replace(self.job, inflate_errors=True)
        noise = input_noise(tokens, self.bundle.vocabulary, inflated)
        return spectrum_chi2(self._predictor, tokens.network_inputs, noise.errors)

    def to_catalog(
        self, source_ids: pa.Array | pa.ChunkedArray, tokens: Tokens, output: ModelOutput
    ) -> pa.Table:
        """Return the rows of the catalog.

        Parameters
        ----------
        source_ids
            Identifiers of the N stars.
        tokens, output
            As :meth:`features` and :meth:`predict` return them.
        """
        beyond = beyond_box(self.bundle, tokens.values, self.job.coefficients)
        # Far from the training stars predictions may overflow: NaN, without a warning.
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            columns = observed(tokens)
            columns |= label_columns(output.prediction)
            distributions = self._distributions(output, columns)
            columns |= predicted_labels(output, distributions)
            columns |= evolution(columns, distributions) | reddening(columns, distributions)
            columns |= luminosity(without_parallax(output, columns), tokens, distributions)
            columns |= combined_distance(columns, tokens)
            columns |= {
                "tgt_box_nout": (beyond > 0).sum(axis=1, dtype=np.int16),
                "ood_mahal": np.asarray(output.prediction.distance, dtype=np.float64),
                "xp_chi2_red": output.chi2,
                "in_training": self.bundle.calibration.in_training(tokens.source_id),
            }
            columns = _storable(columns)
            flags = quality_flags.flags(columns, self._evidence(tokens, output, beyond))
        taught = in_teacher_domain(self.bundle.calibration, output.prediction)
        count = len(tokens)
        content = columns | {
            "source_id": source_ids,
            "quality_flags": flags,
            "input_flags": input_flags(tokens, taught),
            "good_params": quality_flags.good_params(flags),
            "good_mass_age": quality_flags.good_mass_age(flags),
            "model_id": pa.repeat(pa.scalar(self.model_id), count),
            "run_id": pa.repeat(pa.scalar(self.run_id), count),
        }
        return load_contract("catalog").assemble(content, count)

    def to_posterior(
        self, source_ids: pa.Array | pa.ChunkedArray, tokens: Tokens, output: ModelOutput
    ) -> pa.Table | None:
        """Return the rows of the posterior; None where the job asks for none.

        Parameters
        ----------
        source_ids, tokens, output
            As for :meth:`to_catalog`.
        """
        if not self.job.posterior:
            return None
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            columns = observed(tokens) | label_columns(output.prediction)
            distributions = self._distributions(output, columns)
            return posterior_rows(source_ids, distributions, self.job.posterior)

    def _distributions(
        self, output: ModelOutput, columns: dict[str, NDArray[Any]]
    ) -> dict[str, LabelDistribution]:
        return label_distributions(output, self.bundle.calibration.by_label, columns)

    def _evidence(
        self, tokens: Tokens, output: ModelOutput, beyond: NDArray[np.float64]
    ) -> quality_flags.Evidence:
        """Return what the rules of the flags need besides the catalog's columns."""
        prediction = output.prediction
        vocabulary, domain = self.bundle.vocabulary, self.bundle.domain
        index = {label: vocabulary.column(label) for label in LABEL_COLUMNS if label in vocabulary}
        finite = (np.isfinite(prediction.mean) & np.isfinite(prediction.sigma)).all(axis=1)
        if "mass" in prediction.labels:
            finite &= prediction.mean[:, prediction.labels.index("mass")] > 0
        calibration = self.bundle.calibration
        return quality_flags.Evidence(
            bp=tokens.bp,
            rp=tokens.rp,
            excess_factor=tokens.excess_factor,
            blended_fraction=tokens.blended_fraction,
            multiple_or_variable=tokens.multiple_or_variable,
            synthetic=tokens.synthetic,
            failed=np.logical_not(finite),
            nonlinear=output.nonlinear,
            release=tokens.release,
            latent_limit=(
                calibration.latent.limits(tokens.bp != tokens.rp) if calibration.latent else np.inf
            ),
            beyond_box=beyond.max(axis=1, initial=0.0),
            margin=calibration.margin,
            chi2_limit=calibration.chi2,
            limits={
                LABEL_COLUMNS[label]: (float(domain.low[i]), float(domain.high[i]))
                for label, i in index.items()
            },
        )


def check_job(job: Job, bundle: Bundle) -> None:
    """Raise JobError unless model and catalog have what the job names.

    Parameters
    ----------
    job
        Its labels, inputs and checks are looked at.
    bundle
        The model.

    Raises
    ------
    JobError
        A label, input or check that is not possible.
    ReleaseError
        The release of the spectra does not state what is needed; the error names the lines.
    """
    _check_release(job, bundle)
    possible = requested_labels(replace(job, labels=()), bundle)
    unknown = [label for label in job.labels if label not in possible]
    if unknown:
        raise JobError(
            "labels that this model and the catalog do not have",
            wanted=" | ".join(possible),
            found=", ".join(unknown),
            where=f"job.labels, model {bundle.name}",
        )
    features.check_inputs(job, bundle.vocabulary)
    if job.propagation == "network" and not bundle.reads_errors:
        raise JobError(
            "the model does not read errors, and cannot state the uncertainty that they cause",
            wanted="auto | first_order | sampled | none", found="network",
            where=f"job.propagation, model {bundle.name}",
        )  # fmt: skip
    if job.check_spectrum and not checkable(bundle):
        raise JobError(
            "the model was not trained to predict coefficients from each other",
            advice="set check_spectrum = false in the job", where=f"model {bundle.name}",
        )  # fmt: skip


def _check_release(job: Job, bundle: Bundle) -> None:
    release = bundle.release
    for name in ("G", "BP", "RP"):
        release.magnitude(name)
    release.extinction_relation()
    if job.inflate_errors and job.propagation != "none":
        error_factors(release)
    if bundle.vocabulary.basis == "canonical":
        operators(release) if release.bridge is None else read_bridge(release)


def _storable(columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Convert columns to the catalog's types; floats that are not finite become NaN.

    Done before the flags are set, so that they follow from the numbers in the file.
    """
    types = {column.name: column.type for column in load_contract("catalog").columns}
    return {name: _converted(values, types[name]) for name, values in columns.items()}


def _converted(values: NDArray[Any], kind: str) -> NDArray[Any]:
    stored = values.astype(kind, copy=False)
    if not np.issubdtype(stored.dtype, np.floating):
        return stored
    finite = np.isfinite(stored)
    return stored if finite.all() else np.where(finite, stored, stored.dtype.type(np.nan))
