"""Completion of spectra: the missing part from the part that was measured.

The coefficients of a spectrum belong to BP or to RP: wavelengths below and above 640 nm, where the
two are joined. Predicted is a band, or all coefficients that a star lacks, or a range of
wavelengths (inpaint_wavelengths.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.contract import Contract
from catalogproc.datasets.star_reader import ROWS, RowCount, StarFiles, all_inputs_job, read_stars
from catalogproc.errors import JobError, plural
from catalogproc.features.one_band import OTHER, hide_band
from catalogproc.features.spectra import g_magnitude
from catalogproc.features.tokens import Tokens
from catalogproc.io.parquet_writer import TableWriter
from catalogproc.network.predictor import Predictor
from catalogproc.network.star_tokens import StarTokens
from catalogproc.spectra.files import model_facts, spectra_table
from catalogproc.spectra.generated import Spectra, generate_spectra
from catalogproc.spectra.inpaint_wavelengths import (
    BATCH,
    Ranges,
    contains_band,
    fill_wavelengths,
    without_range,
)
from catalogproc.spectra.plot import draw_spectra
from catalogproc.vocabulary import BANDS, Vocabulary

Floats = NDArray[np.float64]
Progress = Callable[[int, int, str], None]

JOINED = 640.0
"""nm: below it GaiaXPy's merged spectrum is BP's, above it RP's, but for a few nm."""

RANGE = (336.0, 1020.0)
"""nm; what GaiaXPy samples."""

EDGES = {"bp": (RANGE[0], JOINED), "rp": (JOINED, RANGE[1])}

SHOWN = 4
"""Spectra in the picture."""


@dataclass(frozen=True)
class InpaintRequest:
    """Which part of a spectrum is read, and which is predicted.

    Attributes
    ----------
    source
        A band, or ``all``.
    target
        A band, or ``missing``: every coefficient that a star lacks; measured ones are kept.
    read_nm
        Ranges of wavelengths [nm] that are read, if they are not complete bands; all others are
        predicted.
    """

    source: str
    target: str
    read_nm: Ranges = ()

    @classmethod
    def of(cls, source: str, target: str) -> InpaintRequest:
        """Return the request of two options.

        Parameters
        ----------
        source, target
            ``bp``, ``rp``, ``all``, ``missing``, or wavelengths in nm such as ``336-500``.

        Raises
        ------
        JobError
            Another word, or the same part twice.
        """
        known, wanted = _part(source, "--from"), _part(target, "--to")
        if known == "missing":
            raise JobError("what is missing cannot be read", found=source, where="--from")
        if wanted == "all":
            wanted = "missing"
        if known == wanted:
            raise JobError(
                "the part to predict is the part that is read",
                wanted=f"--to {OTHER.get(source, 'another part')}",
                found=f"--from {source} --to {target}",
            )  # fmt: skip
        if isinstance(known, str) and isinstance(wanted, str):
            return cls(known, wanted)
        known_nm = RANGE if known == "all" else _nm(known)
        read = (known_nm,) if wanted == "missing" else without_range((known_nm,), _nm(wanted))
        if not read:
            raise JobError("nothing is left to be read", found=f"--from {source} --to {target}")
        return cls("all" if known == "all" else "part", "part", read)

    @property
    def hidden(self) -> str:
        """The band of which no token is read; empty if none or both are."""
        if self.read_nm:
            parts = [band for band in BANDS if not contains_band(self.read_nm, EDGES[band])]
            return parts[0] if len(parts) == 1 else ""
        if self.target in BANDS:
            return self.target
        return OTHER.get(self.source, "")

    @property
    def words(self) -> str:
        """The request in words."""
        if not self.read_nm:
            return f"{self.target} from {self.source}"
        return "from " + " and ".join(f"{low:g}-{high:g}" for low, high in self.read_nm) + " nm"

    def read(self, tokens: StarTokens, vocabulary: Vocabulary) -> StarTokens:
        """Return the tokens that the model reads; others are absent.

        Parameters
        ----------
        tokens
            Of N stars.
        vocabulary
            The model's tokens.
        """
        if self.read_nm:
            shown = np.zeros(len(vocabulary), dtype=bool)
            for band in BANDS:
                if contains_band(self.read_nm, EDGES[band]):
                    shown[vocabulary.coefficient_columns(band)] = True
            if self.source == "all":
                shown[vocabulary.columns([n for n in ("jh", "jk") if n in vocabulary])] = True
        elif self.source == "all":
            shown = np.ones(len(vocabulary), dtype=bool)
            if self.target in BANDS:
                # A colour of Gaia's holds the other band.
                shown[vocabulary.coefficient_columns(self.target)] = False
                shown[vocabulary.column("bprp")] = False
        else:
            shown = np.zeros(len(vocabulary), dtype=bool)
            shown[vocabulary.coefficient_columns(self.source)] = True
        return tokens.only(shown)


@dataclass(frozen=True)
class SpectraOutput:
    """Files of completed spectra.

    Attributes
    ----------
    parquet
        The spectra: a .parquet file.
    plot
        A PNG of the first few completed spectra; None draws none.
    """

    parquet: Path
    plot: Path | None = None

    def check(self) -> None:
        """Raise JobError unless the names end in the formats that are written."""
        if self.parquet.suffix.lower() != ".parquet":
            raise JobError("completed spectra are Parquet", wanted="NAME.parquet",
                           found=self.parquet.name, where="--output")  # fmt: skip
        if self.plot is not None and self.plot.suffix.lower() != ".png":
            raise JobError("a picture is a PNG", wanted="NAME.png", found=self.plot.name,
                           where="--plot")  # fmt: skip


def _part(word: str, where: str) -> str | tuple[float, float]:
    """A part by name, or wavelengths; the wavelengths of a band are the band."""
    if word in (*BANDS, "all", "missing"):
        return word
    low, dash, high = word.partition("-")
    try:
        ends = (float(low), float(high)) if dash else None
    except ValueError:
        ends = None
    if ends is None or not RANGE[0] <= ends[0] < ends[1] <= RANGE[1]:
        raise JobError(
            "a part of a spectrum", wanted="bp, rp, all, missing, or wavelengths in nm as 336-500,"
            f" within {RANGE[0]:.0f} to {RANGE[1]:.0f}", found=word, where=where,
        )  # fmt: skip
    return next((band for band, edges in EDGES.items() if edges == ends), ends)


def _nm(part: str | tuple[float, float]) -> tuple[float, float]:
    return EDGES[part] if isinstance(part, str) else part


@dataclass(frozen=True)
class InpaintResult:
    """Counts of spectra.

    Attributes
    ----------
    read, written, rejected
        Spectra read; completed; rows that a run rejects too.
    without
        Stars without a coefficient that is read, or without a G magnitude.
    output
        The file.
    synthetic
        Completed spectra of which a band was hidden and the G magnitude, as none was given,
        synthesised from both bands.
    """

    read: int
    written: int
    rejected: int
    without: int
    output: Path
    synthetic: int = 0

    def lines(self) -> list[str]:
        """Return the result as lines of text."""
        text = [f"{plural(self.read, 'spectrum', 'spectra')} read, {self.written:,} written to"
                f" {self.output}"]  # fmt: skip
        if self.synthetic:
            text.append(
                f"G magnitude of {plural(self.synthetic, 'star')} computed from both"
                " bands, so that it holds the predicted one: --gaia-source gives the measured one"
            )
        if self.without:
            text.append(
                f"{plural(self.without, 'star')} left out: no coefficient to go by, or no"
                " G magnitude"
            )
        if self.rejected:
            text.append(f"{plural(self.rejected, 'row')} left out, which a run would reject too")
        return text


def complete(
    predictor: Predictor, whole: Tokens, shown: StarTokens, request: InpaintRequest
) -> Spectra:
    """Return spectra in electrons per second, with the requested part predicted.

    Every coefficient of a requested band is predicted. If missing ones are requested, those that
    are read are kept; if wavelengths are requested, those of a band that is read completely.
    NaN for stars without any input.

    Parameters
    ----------
    predictor
        The model.
    whole
        Tokens of N stars, of which no band is hidden.
    shown
        What the model reads of them: see :func:`shown_tokens`.
    request
        Which part is read and which predicted.
    """
    vocabulary = predictor.bundle.vocabulary
    magnitude = g_magnitude(whole.g_flux, vocabulary.basis_release.magnitude("G").zero_point)
    if request.read_nm:
        spectra, has_inputs = fill_wavelengths(predictor, shown, whole, request.read_nm)
        return spectra.at_magnitude(np.where(has_inputs, magnitude, np.nan))
    predicted = generate_spectra(predictor, shown)
    coefficients, errors = dict(predicted.coefficients), dict(predicted.errors)
    for band in BANDS:
        if band == request.hidden:
            continue
        at = vocabulary.coefficient_columns(band)
        known = np.isfinite(shown.values[:, at])
        coefficients[band] = np.where(known, shown.values[:, at], coefficients[band])
        errors[band] = np.where(known, shown.errors[:, at], errors[band])
    spectra = replace(predicted, coefficients=coefficients, errors=errors)
    nothing = ~shown.present.any(axis=1)
    return spectra.at_magnitude(np.where(nothing, np.nan, magnitude))


def shown_tokens(
    whole: Tokens,
    spectra: pa.RecordBatch | pa.Table,
    request: InpaintRequest,
    vocabulary: Vocabulary,
) -> StarTokens:
    """Return the tokens that the model reads: nothing of a hidden band is in them.

    Parameters
    ----------
    whole
        Tokens of N stars, of which no band is hidden.
    spectra
        The stars' spectra.
    request
        Which part is read and which predicted.
    vocabulary
        The model's tokens.
    """
    made = whole
    if request.hidden:
        made = hide_band(whole, spectra, request.hidden, vocabulary)
    return request.read(made.network_inputs, vocabulary)


def inpaint(
    files: StarFiles,
    request: InpaintRequest,
    output: SpectraOutput,
    predictor: Predictor,
    progress: Progress | None = None,
) -> InpaintResult:
    """Complete the spectra of files, and write one Parquet file in the archive's layout.

    A star of one band needs its G magnitude from gaia_source, which gives its scale.

    Parameters
    ----------
    files
        XP spectra and gaia_source tables.
    request
        Which part is read and which predicted.
    output
        The files to write.
    predictor
        The trained model.
    progress
        Called with the number of stars done, 0, and an empty text.

    Raises
    ------
    InputError
        A file cannot be read.
    JobError
        An output of another format.
    """
    output.check()
    bundle, vocabulary, plot = predictor.bundle, predictor.bundle.vocabulary, output.plot
    facts = model_facts(bundle) | vocabulary.basis_release.facts | {"inpainted": request.words}
    tally, without, synthetic = RowCount(), 0, 0
    batch = BATCH if request.read_nm else ROWS
    stars = read_stars(files, vocabulary, all_inputs_job(vocabulary), tally, batch)
    with TableWriter(output.parquet, _contract(vocabulary), facts) as writer:
        for good, whole in stars:
            shown = shown_tokens(whole, good, request, vocabulary)
            spectra = complete(predictor, whole, shown, request)
            scaled = np.isfinite(spectra.g_mag)
            completed, ids = spectra.rows(scaled), good.column("source_id").to_numpy()[scaled]
            writer.write(_table(completed, ids)[0])
            without += int((~scaled).sum())
            synthetic += int((whole.synthetic_g & scaled).sum()) if request.hidden else 0
            if plot is not None and len(completed):
                _draw_first(plot, completed, ids, f"{bundle.name}, {request.words}")
                plot = None
            if progress is not None:
                progress(writer.rows + without, 0, "")
        tally.check(writer.rows, without)
    return InpaintResult(
        tally.read, writer.rows, tally.rejected, without, output.parquet, synthetic
    )


def _table(spectra: Spectra, source_id: NDArray[np.int64]) -> tuple[pa.Table, Contract]:
    return spectra_table(spectra, source_id, {"phot_g_mean_mag": spectra.g_mag})


def _draw_first(plot: Path, spectra: Spectra, source_id: NDArray[np.int64], by: str) -> None:
    few, title = np.arange(len(spectra)) < SHOWN, f"XP spectra completed by {by}, 1 σ bands"
    draw_spectra(plot, spectra.rows(few), [str(star) for star in source_id[few]], title)


def _contract(vocabulary: Vocabulary) -> Contract:
    nothing = {band: np.empty((0, vocabulary.coefficients(band))) for band in BANDS}
    empty = Spectra(
        nothing, nothing, np.empty(0), basis=vocabulary.basis, release=vocabulary.basis_release
    )
    return _table(empty, np.empty(0, np.int64))[1]
