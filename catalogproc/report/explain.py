"""One star of a catalog explained: its inputs, the predictions, and the model's attention.

The star is looked up in the catalog and its spectrum in the input file that the receipt names.
The code that made the catalog then processes the spectrum again, and the predictions must be
equal to those of the catalog.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.errors import BundleError, InputError, JobError, VerifyError
from catalogproc.io.remote_file import File
from catalogproc.io.staging import located
from catalogproc.job import Job
from catalogproc.report.run_model import find_bundle
from catalogproc.rundir.manifest import RunIdentity, read_identity
from catalogproc.rundir.receipts import FileRows, Receipt
from catalogproc.rundir.star_rows import star_rows
from catalogproc.vocabulary import BANDS, Vocabulary

if TYPE_CHECKING:
    from catalogproc.features.tokens import Tokens
    from catalogproc.inference.engine import Engine
    from catalogproc.network.bundle import Bundle
    from catalogproc.readers.gaia_source import AuxiliaryTable
    from catalogproc.release import Release

Float = NDArray[np.float64]


@dataclass(frozen=True)
class LabelPrediction:
    """The catalog's prediction of one label, in the unit of its token.

    Attributes
    ----------
    label
        Name of the token.
    mean, sigma
        The value and its total uncertainty, which a probability does not have: NaN.
    input_sigma
        Input uncertainty; NaN where the run did not compute it.
    attention
        Shares (T + 1,) of the attention that the star's T tokens and the learned key get; 0 for
        tokens that the label was predicted without.
    """

    label: str
    mean: float
    sigma: float
    input_sigma: float
    attention: Float


@dataclass(frozen=True)
class Spectrum:
    """A calibrated spectrum: flux and its uncertainty (L,) in W m-2 nm-1."""

    flux: Float
    error: Float


@dataclass(frozen=True)
class Explanation:
    """How a star was processed.

    Attributes
    ----------
    source_id
        The star.
    row
        Its row in the catalog, by column; empty where it was rejected.
    rejected
        Its row among the rejected ones; empty where it was not rejected.
    file, row_number
        The input file, and the row in it.
    identity, receipt
        The run, and the receipt of the star's chunk.
    duplicates
        Number of other rows of the run with this source_id.
    tokens
        Names (T,) of the tokens that the model read.
    values, errors
        Their values and uncertainties (T,) in their units; NaN where unknown.
    standardised, low, high
        Their values, and the limits of the training stars, standardised (T,).
    predictions
        One for each label.
    wavelengths
        In nm (L,).
    observed, predicted
        The observed spectrum, and the one that the model predicts from its own labels; None
        where the spectrum cannot be calibrated.
    predicted_coefficients
        Number of predicted coefficients of each band.
    """

    source_id: int
    row: Mapping[str, Any]
    rejected: Mapping[str, Any]
    file: File
    row_number: int
    identity: RunIdentity
    receipt: Receipt
    duplicates: int = 0
    tokens: tuple[str, ...] = ()
    values: Float | None = None
    errors: Float | None = None
    standardised: Float | None = None
    low: Float | None = None
    high: Float | None = None
    predictions: tuple[LabelPrediction, ...] = ()
    wavelengths: Float | None = None
    observed: Spectrum | None = None
    predicted: Spectrum | None = None
    predicted_coefficients: Mapping[str, int] | None = None


def explain(
    folder: Path,
    source_id: int,
    *,
    model: str | Path | None = None,
    spectra: Path | None = None,
    gaia_source: Sequence[Path] = (),
) -> Explanation:
    """Explain one star of a run.

    Parameters
    ----------
    folder
        The run folder.
    source_id
        The star.
    model
        Folder or shipped name of the run's model, if it is not the default one.
    spectra, gaia_source
        The input files and gaia_source tables, if they were moved since the run.

    Raises
    ------
    JobError
        The run has no such star.
    InputError
        An input file is missing or was changed.
    BundleError
        The run's model was not found.
    VerifyError
        The predictions differ from those of the catalog.
    """
    folder = Path(folder)
    identity = read_identity(folder)
    rows = list(star_rows(folder, source_id))
    if not rows:
        raise JobError(
            "no such star in this run", wanted=f"a source_id of {folder}", found=source_id,
            advice="catalogproc export DIR --columns source_id --output stars.csv lists them",
        )  # fmt: skip
    # The same star may occur twice in the input: a predicted row is preferred to a rejected one.
    found = min(rows, key=lambda one: one.is_rejected)
    receipt, row, duplicates = found.receipt, found.values, len(rows) - 1
    source = found.source()
    file = located(spectra or source.file)
    _check_file(file, source)
    if found.is_rejected:
        return Explanation(source_id, {}, row, file, int(row["row"]), identity, receipt, duplicates)
    engine = _engine(identity, _bundle(identity, model, folder))
    row_number, spectrum, own = _spectrum(file, source, source_id, engine.bundle.vocabulary)
    tables = _auxiliary_tables(folder, identity, gaia_source, engine.bundle.release)
    auxiliary = _auxiliary_row(tables, source_id, own)
    tokens = engine.features(spectrum, auxiliary)
    _check_equal(engine.process(spectrum, auxiliary).to_pylist()[0], row)
    star = Explanation(source_id, row, {}, file, row_number, identity, receipt, duplicates)
    return _with_predictions(star, engine, spectrum, tokens)


def _check_file(file: File, source: FileRows) -> None:
    from catalogproc.readers.chunks import fingerprint

    if not file.is_file():
        raise InputError(
            "the input file is not where the run found it", wanted=file,
            advice="go to the folder that the run was started in, or name the file: --input FILE",
        )  # fmt: skip
    if fingerprint(file) != source.fingerprint:
        raise InputError(
            "the input file is not the one that the run read",
            wanted=f"fingerprint {source.fingerprint[:16]}…", where=file,
        )  # fmt: skip


def _bundle(identity: RunIdentity, model: str | Path | None, folder: Path) -> Bundle:
    bundle = find_bundle(identity, model, folder)
    if bundle is None:
        raise BundleError(
            "the run's model was not found",
            wanted=f"{identity.model.get('name')} {identity.model_hash[:16]}…",
            found=model or "no shipped model has that hash",
            advice="name its folder: --model DIR",
        )
    return bundle


def _engine(identity: RunIdentity, bundle: Bundle) -> Engine:
    from catalogproc.features.dust_map import open_dust_map
    from catalogproc.inference.engine import Engine

    known = {field.name for field in fields(Job)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in identity.job.items()
        if name in known
    }
    job = Job(**values)
    dust_map = open_dust_map() if job.dust else None
    return Engine(bundle, job, run_id=identity.run_id, dust_map=dust_map)


def _spectrum(
    file: File, source: FileRows, source_id: int, vocabulary: Vocabulary
) -> tuple[int, pa.RecordBatch, pa.Table | None]:
    """Return the number of the star's row, its spectrum after screening, and columns beside it."""
    from catalogproc.inference.screening import Duplicates, screen
    from catalogproc.readers.xp import read_spectra, split_own

    batches = read_spectra(
        file,
        skip=source.first_row,
        rows=source.rows_read,
        own=True,
        release=vocabulary.data_release,
    )
    for batch in batches:
        rows = batch.filter(pc.equal(batch.column("source_id"), source_id))
        if rows.num_rows:
            accepted, _ = screen(rows.slice(0, 1), vocabulary, Duplicates(), str(file))
            return rows.column("row")[0].as_py(), *split_own(accepted)
    raise VerifyError("the star's spectrum is not in the file that its receipt names", where=file)


def _auxiliary_tables(
    folder: Path, identity: RunIdentity, moved_to: Sequence[Path], release: Release
) -> AuxiliaryTable:
    """Return the gaia_source tables of a run. Raises InputError where one is gone."""
    from catalogproc.features.dust_map import FACTS
    from catalogproc.readers.gaia_source import open_auxiliary

    paths = [file.path for file in identity.auxiliary if not file.path.endswith(FACTS)]
    files = [located(path) for path in moved_to or paths] if paths else []
    for path in files:
        if not path.is_file():
            raise InputError(
                "a gaia_source table is not where the run found it", wanted=path,
                advice="go to the folder that the run was started in, or name it: --gaia-source",
            )  # fmt: skip
    return open_auxiliary(files, folder, release)


def _auxiliary_row(tables: AuxiliaryTable, source_id: int, own: pa.Table | None) -> pa.Table | None:
    """Return the star's auxiliary columns; None where the run had none."""
    if own is None and not tables.files:
        return None
    return tables.join(pa.array([source_id], pa.int64()), own).rows


def _check_equal(repeated: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    """Raise VerifyError unless the predictions agree within 1 % of their uncertainties."""
    for name in ("teff", "logg", "m_h", "mass", "log_age"):
        if not abs(repeated[name] - row[name]) <= 0.01 * max(row[f"e_{name}"], 1e-6):
            if np.isnan(repeated[name]) and np.isnan(row[name]):
                continue
            raise VerifyError(
                "the repeated prediction differs from the one in the catalog",
                wanted=f"{name} {row[name]}", found=repeated[name],
                advice="run catalogproc verify; use the version of catalogproc that made the run",
            )  # fmt: skip


def _with_predictions(
    star: Explanation, engine: Engine, spectrum: pa.RecordBatch, tokens: Tokens
) -> Explanation:
    """Return the explanation with tokens, predictions and spectra filled in."""
    bundle, vocabulary = engine.bundle, engine.bundle.vocabulary
    present = np.flatnonzero(np.isfinite(tokens.values[0]))
    center, scale = (getattr(bundle.standardisation, n)[present] for n in ("center", "scale"))
    star = replace(
        star,
        tokens=tuple(vocabulary.names[i] for i in present),
        values=tokens.values[0, present],
        errors=tokens.errors[0, present],
        standardised=(tokens.values[0, present] - center) / scale,
        low=(bundle.domain.low[present] - center) / scale,
        high=(bundle.domain.high[present] - center) / scale,
        predictions=_predictions(engine, tokens, star.row),
    )
    return _with_spectra(star, bundle, spectrum, float(tokens.g_flux[0]))


def _predictions(
    engine: Engine, tokens: Tokens, row: Mapping[str, Any]
) -> tuple[LabelPrediction, ...]:
    """Return the predictions in the catalog's row, with the attention behind each."""
    from catalogproc.inference.engine import LABEL_COLUMNS
    from catalogproc.report.explain_attention import label_attention

    predictions = []
    for label, share in label_attention(engine, tokens).items():
        column = LABEL_COLUMNS.get(label, label)
        sigma, input_sigma = (row.get(f"e_{column}{part}", np.nan) for part in ("", "_input"))
        predictions.append(LabelPrediction(label, row[column], sigma, input_sigma, share))
    return tuple(predictions)


def _with_spectra(
    star: Explanation, bundle: Bundle, spectrum: pa.RecordBatch, g_flux: float
) -> Explanation:
    """Return the explanation with the observed and the predicted spectrum.

    The coefficients that the model predicts are relative to the G flux of the star.
    """
    from catalogproc.errors import ReleaseError
    from catalogproc.features.flux_calibration import calibration
    from catalogproc.features.star_batch import read

    # Of a sampled spectrum these are canonical coefficients, which give its flux.
    stars = read(spectrum, None, bundle.vocabulary)
    values, errors = stars.coefficients, stars.errors
    if not all(np.isfinite(values[band]).all() for band in BANDS):
        return star
    requested = {band: _requestable(bundle, band) for band in BANDS}
    means, sigmas = _predicted_coefficients(bundle, star.predictions, requested)
    try:
        own, made = calibration(bundle.release), calibration(bundle.vocabulary.basis_release)
        observed = Spectrum(own.flux(values)[0], own.error(errors)[0])
    except ReleaseError:
        return star
    means = {band: mean * g_flux for band, mean in means.items()}
    sigmas = {band: sigma * g_flux for band, sigma in sigmas.items()}
    predicted = Spectrum(made.flux(means)[0], made.error(sigmas)[0])
    return replace(
        star,
        wavelengths=made.wavelengths,
        observed=observed,
        predicted=predicted if any(requested.values()) else None,
        predicted_coefficients={band: len(names) for band, names in requested.items()},
    )


def _predicted_coefficients(
    bundle: Bundle, predictions: Sequence[LabelPrediction], requested: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Float], dict[str, Float]]:
    """Return mean and sigma (1, n) of each band's coefficients; 0 where not requested."""
    from catalogproc.network.predictor import Predictor
    from catalogproc.network.star_tokens import StarTokens

    vocabulary = bundle.vocabulary
    labels = np.full((1, len(vocabulary)), np.nan)
    for prediction in predictions:
        labels[0, vocabulary.column(prediction.label)] = prediction.mean
    names = [name for band in BANDS for name in requested[band]]
    shapes = {band: (1, vocabulary.coefficients(band)) for band in BANDS}
    means = {band: np.zeros(shape) for band, shape in shapes.items()}
    sigmas = {band: np.zeros(shape) for band, shape in shapes.items()}
    if names:
        output = Predictor(bundle).predict(StarTokens.exact(labels), names)
        for band in BANDS:
            for name in requested[band]:
                index = vocabulary.tokens[vocabulary.column(name)].index
                means[band][0, index] = output.mean[0, names.index(name)]
                sigmas[band][0, index] = output.sigma[0, names.index(name)]
    return means, sigmas


def _requestable(bundle: Bundle, band: str) -> list[str]:
    """Return the coefficients of a band that the model can predict."""
    names = (bundle.vocabulary.names[i] for i in bundle.vocabulary.coefficient_columns(band))
    return [name for name in names if name in bundle.requestable]
