"""One star of a catalog, explained: what was read of it, what the model made of it, and why.

The star is looked up in the catalog, its spectrum in the input file that the receipt names,
and everything on the way from the one to the other is done again, by the code that made the
catalog; the answers must come out the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalogproc.errors import BundleError, InputError, JobError, VerifyError
from catalogproc.export.where import Condition
from catalogproc.io.remote import local
from catalogproc.job import Job
from catalogproc.rundir.manifest import RunIdentity, read_identity
from catalogproc.rundir.receipts import Receipt, iterate_receipts
from catalogproc.vocabulary import BANDS, Vocabulary

if TYPE_CHECKING:
    from catalogproc.features.tokens import Tokens
    from catalogproc.inference.engine import Engine
    from catalogproc.network.bundle import Bundle

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Answer:
    """What the catalog says of one label, in the token's unit.

    ``sigma`` is its whole error, ``inputs`` the part of it that the errors of what was read
    cause, and ``rest`` the other; ``attention`` (T + 1,) is where the answer was looked for:
    the star's T tokens, and the learned key.
    """

    label: str
    mean: float
    sigma: float
    inputs: float
    rest: float
    attention: Float


@dataclass(frozen=True)
class Spectrum:
    """A calibrated spectrum: flux and its error (L,) in W m-2 nm-1."""

    flux: Float
    error: Float


@dataclass(frozen=True)
class Explanation:
    """A star and what became of it.

    Attributes
    ----------
    row
        Its row in the catalog, by column; empty where it was rejected.
    rejected
        Its row among the rejected; empty where it was answered.
    file, place
        The input file, and the row in it.
    identity, receipt
        The run, and the receipt of its chunk.
    again
        How many other rows of the catalog have this source_id.
    tokens
        The names (T,) of the tokens that the model read.
    values, errors, standardised, low, high
        Theirs (T,): in their units, standardised, and the limits of the training stars,
        standardised; NaN where unknown.
    answers
        By label.
    wavelengths
        In nm (L,).
    observed, believed
        The spectrum as observed, and as the model expects it of a star with these answers;
        None where GaiaXPy cannot calibrate it.
    believed_from
        How many coefficients of each band the model was asked for.
    """

    source_id: int
    row: Mapping[str, Any]
    rejected: Mapping[str, Any]
    file: Path
    place: int
    identity: RunIdentity
    receipt: Receipt
    again: int = 0
    tokens: tuple[str, ...] = ()
    values: Float | None = None
    errors: Float | None = None
    standardised: Float | None = None
    low: Float | None = None
    high: Float | None = None
    answers: tuple[Answer, ...] = ()
    wavelengths: Float | None = None
    observed: Spectrum | None = None
    believed: Spectrum | None = None
    believed_from: Mapping[str, int] | None = None


def explain(
    folder: Path,
    source_id: int,
    *,
    model: str | Path | None = None,
    spectra: Path | None = None,
    companions: Sequence[Path] = (),
) -> Explanation:
    """Explain one star of a run.

    Parameters
    ----------
    folder
        The output folder of the run.
    model
        Where the run's model is, if it is not one that ships.
    spectra, companions
        Where the input files are, if they are not where the run found them.

    Raises
    ------
    JobError
        The run has no such star.
    InputError
        The input file is gone or was changed.
    BundleError
        The run's model is not at hand.
    VerifyError
        The answers do not come out as the catalog has them.
    """
    folder = Path(folder)
    identity = read_identity(folder)
    found = list(_rows(folder, source_id))
    if not found:
        raise JobError("no such star in this run", wanted=folder, found=source_id, where="explain")
    # An answer comes before a rejection: the same star may stand in the input twice.
    receipt, row, refused = min(found, key=lambda item: item[2])
    file = local(spectra or receipt.file)
    _check_file(file, receipt)
    if refused:
        return Explanation(
            source_id, {}, row, file, int(row["row"]), identity, receipt, again=len(found) - 1
        )
    engine = _engine(identity, _bundle(identity, model))
    place, spectrum = _spectrum(file, receipt, source_id, engine.bundle.vocabulary)
    beside = _companion(folder, identity, companions, source_id)
    read = engine.features(spectrum, beside)
    _check_same(engine.process(spectrum, beside).to_pylist()[0], row)
    base = Explanation(source_id, row, {}, file, place, identity, receipt, again=len(found) - 1)
    return _explained(base, engine, spectrum, read)


def _rows(folder: Path, source_id: int) -> Iterator[tuple[Receipt, dict[str, Any], bool]]:
    """Each row of the star, with its receipt, and whether it was rejected."""
    this = Condition("", (), pc.field("source_id") == source_id)
    for receipt in iterate_receipts(folder):
        for name, refused in ((receipt.catalog_part, False), (receipt.rejected_part, True)):
            if not name:
                continue
            with pq.ParquetFile(folder / name) as part:
                at = part.schema_arrow.names.index("source_id")
                for group in range(part.metadata.num_row_groups):
                    told = part.metadata.row_group(group).column(at).statistics
                    if told and told.has_min_max and not told.min <= source_id <= told.max:
                        continue
                    rows = part.read_row_group(group).filter(this.expression)
                    yield from ((receipt, row, refused) for row in rows.to_pylist())


def _check_file(file: Path, receipt: Receipt) -> None:
    from catalogproc.readers.chunks import fingerprint

    if not file.is_file():
        raise InputError(
            "the input file is not where the run found it", wanted=file,
            advice="go to the folder that the run was started in, or name the file: --input FILE",
        )  # fmt: skip
    if fingerprint(file) != receipt.input_fingerprint:
        raise InputError(
            "the input file is not the one that the run read",
            wanted=f"fingerprint {receipt.input_fingerprint[:16]}…", where=file,
        )  # fmt: skip


def _bundle(identity: RunIdentity, model: str | Path | None) -> Bundle:
    from catalogproc.network.bundle import load_bundle

    for place in (model, identity.model.get("name"), "default"):
        try:
            bundle = load_bundle(place) if place else None
        except BundleError:
            continue
        if bundle is not None and bundle.hash == identity.model_hash:
            return bundle
    raise BundleError(
        "the run's model is not at hand",
        wanted=f"{identity.model.get('name')} {identity.model_hash[:16]}…",
        found=model or "none of that hash ships",
        advice="name its folder: --model DIR",
    )


def _engine(identity: RunIdentity, bundle: Bundle) -> Engine:
    from catalogproc.features.dust_map import open_dust_map
    from catalogproc.inference.engine import Engine

    known = {field.name for field in fields(Job)}
    stated: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in identity.job.items()
        if name in known
    }
    job = Job(**stated)
    dust_map = open_dust_map() if job.dust else None
    return Engine(bundle, job, run_id=identity.run_id, dust_map=dust_map)


def _spectrum(
    file: Path, receipt: Receipt, source_id: int, vocabulary: Vocabulary
) -> tuple[int, pa.RecordBatch]:
    """The star's row in the input, screened, and its number."""
    from catalogproc.inference.screening import Duplicates, screen
    from catalogproc.readers.xp import read_spectra

    batches = read_spectra(file, skip=receipt.first_row, rows=receipt.rows_read)
    for batch in batches:
        found = batch.filter(pc.equal(batch.column("source_id"), source_id))
        if found.num_rows:
            good, _ = screen(found.slice(0, 1), vocabulary, Duplicates(), str(file))
            return found.column("row")[0].as_py(), good
    raise VerifyError("the star's spectrum is not in the file that its receipt names", where=file)


def _companion(
    folder: Path, identity: RunIdentity, given: Sequence[Path], source_id: int
) -> pa.Table | None:
    from catalogproc.features.dust_map import FACTS
    from catalogproc.readers.gaia_source import open_companion

    named = [file.path for file in identity.companions if not file.path.endswith(FACTS)]
    if not named:
        return None
    files = [local(path) for path in given or named]
    for path in files:
        if not path.is_file():
            raise InputError(
                "a companion file is not where the run found it", wanted=path,
                advice="go to the folder that the run was started in, or name it: --gaia-source",
            )  # fmt: skip
    companion = open_companion(files, folder)
    return companion.match(pa.array([source_id], pa.int64()))


def _check_same(made: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    """The answers are those of the catalog, to a hundredth of their errors."""
    for name in ("teff", "logg", "m_h", "mass", "log_age"):
        if not abs(made[name] - row[name]) <= 0.01 * max(row[f"e_{name}"], 1e-6):
            if np.isnan(made[name]) and np.isnan(row[name]):
                continue
            raise VerifyError(
                "the star's answer does not come out as the catalog has it",
                wanted=f"{name} {row[name]}", found=made[name],
                advice="catalogproc verify; and the same version of catalogproc as the run's",
            )  # fmt: skip


def _explained(
    base: Explanation, engine: Engine, spectrum: pa.RecordBatch, read: Tokens
) -> Explanation:
    bundle, vocabulary = engine.bundle, engine.bundle.vocabulary
    present = np.flatnonzero(np.isfinite(read.values[0]))
    center, scale = (getattr(bundle.standardisation, n)[present] for n in ("center", "scale"))
    answers = _answers(engine, read, present, base.row)
    wavelengths, observed, believed, asked = _spectra(bundle, spectrum, read, answers)
    return replace(
        base,
        tokens=tuple(vocabulary.names[i] for i in present),
        values=read.values[0, present],
        errors=read.errors[0, present],
        standardised=(read.values[0, present] - center) / scale,
        low=(bundle.domain.low[present] - center) / scale,
        high=(bundle.domain.high[present] - center) / scale,
        answers=answers,
        wavelengths=wavelengths,
        observed=observed,
        believed=believed,
        believed_from=asked,
    )


def _answers(
    engine: Engine, read: Tokens, present: NDArray[np.int64], row: Mapping[str, Any]
) -> tuple[Answer, ...]:
    from catalogproc.inference.engine import LABEL_COLUMNS
    from catalogproc.network.attention import attention
    from catalogproc.network.predictor import pack

    bundle, labels = engine.bundle, engine.job.labels
    ids, x = pack((read.values - bundle.standardisation.center) / bundle.standardisation.scale)
    count = len(present)
    asked = bundle.vocabulary.columns(labels) + 1
    looked = attention(bundle.network(), ids[0, :count], x[0, :count], asked)
    answers = []
    for label, shares in zip(labels, looked, strict=True):
        name = LABEL_COLUMNS[label]
        parts = (f"e_{name}", f"e_{name}_input", f"e_{name}_model")
        sigma, inputs, rest = (row.get(part, np.nan) for part in parts)
        answers.append(Answer(label, row[name], sigma, inputs, rest, shares))
    return tuple(answers)


def _spectra(
    bundle: Bundle, spectrum: pa.RecordBatch, read: Tokens, answers: Sequence[Answer]
) -> tuple[Float | None, Spectrum | None, Spectrum | None, Mapping[str, int] | None]:
    """The star's spectrum as observed, and as the model expects it of its own answers."""
    from catalogproc.errors import ReleaseError
    from catalogproc.features import spectra as xp
    from catalogproc.features.flux_calibration import calibration
    from catalogproc.network.predictor import Predictor

    vocabulary = bundle.vocabulary
    bands: dict[str, dict[str, Float]] = {"value": {}, "error": {}, "mean": {}, "sigma": {}}
    told = np.full((1, len(vocabulary)), np.nan)
    for answer in answers:
        told[0, vocabulary.column(answer.label)] = answer.mean
    asked = {band: _requestable(bundle, vocabulary, band) for band in BANDS}
    names = [name for band in BANDS for name in asked[band]]
    answer_of = Predictor(bundle).predict(told, names) if names else None
    for band in BANDS:
        count = vocabulary.coefficients(band)
        column = spectrum.column(f"{band}_coefficients")
        if column.null_count:
            return None, None, None, None
        bands["value"][band] = np.asarray(xp.matrix(column, count), dtype=np.float64)
        errors = xp.matrix(spectrum.column(f"{band}_coefficient_errors"), count)
        bands["error"][band] = np.asarray(errors, dtype=np.float64)
        mean, sigma = np.zeros((1, count)), np.zeros((1, count))
        for name in asked[band]:
            assert answer_of is not None
            at = vocabulary.tokens[vocabulary.column(name)].index
            mean[0, at] = answer_of.mean[0, names.index(name)]
            sigma[0, at] = answer_of.sigma[0, names.index(name)]
        bands["mean"][band], bands["sigma"][band] = (v * read.g_flux[0] for v in (mean, sigma))
    try:
        made = calibration()
        observed = Spectrum(made.flux(bands["value"])[0], made.error(bands["error"])[0])
    except ReleaseError:
        return None, None, None, None
    believed = Spectrum(made.flux(bands["mean"])[0], made.error(bands["sigma"])[0])
    counts = {band: len(asked[band]) for band in BANDS}
    return made.wavelengths, observed, believed if names else None, counts


def _requestable(bundle: Bundle, vocabulary: Vocabulary, band: str) -> list[str]:
    at = vocabulary.coefficient_columns(band)
    return [vocabulary.names[i] for i in at if vocabulary.names[i] in bundle.requestable]
