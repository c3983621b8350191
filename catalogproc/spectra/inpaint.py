"""The part of a spectrum that is missing, from the part that is there.

A spectrum is known by its coefficients, which belong to BP or to RP: wavelengths below and
above 640 nm, where the two are joined. What is asked is a band, or whatever coefficients a star
lacks, which the model answers; or any range of wavelengths (generation/gap.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalogproc import __version__
from catalogproc.datasets.star_reader import ROWS, RowCount, StarFiles, all_inputs_job, read_stars
from catalogproc.errors import JobError
from catalogproc.features.spectra import G_ZERO_POINT
from catalogproc.features.tokens import Tokens
from catalogproc.io.parquet_writer import TableWriter
from catalogproc.network.bundle import Bundle
from catalogproc.network.predictor import Predictor
from catalogproc.spectra.files import spectra_table
from catalogproc.spectra.generated import Spectra, generate_spectra
from catalogproc.spectra.inpaint_wavelengths import BATCH, Ranges, fill, outside, whole
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

OTHER = {"bp": "rp", "rp": "bp"}


@dataclass(frozen=True)
class Question:
    """What is read of a spectrum, and what is asked.

    ``source`` is a band, or ``all`` that is there; ``target`` a band, or ``missing``: every
    coefficient that a star lacks, the others standing as they were measured. ``read_nm`` are
    ranges of wavelengths [nm] that are read where these are no whole bands; all else is asked.
    """

    source: str
    target: str
    read_nm: Ranges = ()

    @classmethod
    def of(cls, source: str, target: str) -> Question:
        """From words: ``bp``, ``rp``, ``all``, ``missing``, or wavelengths as ``336-500`` in nm.

        Raises JobError for words that mean nothing, or that answer themselves.
        """
        known, asked = _part(source, "--from"), _part(target, "--to")
        if known == "missing":
            raise JobError("what is missing cannot be read", found=source, where="--from")
        if asked == "all":
            asked = "missing"
        if known == asked:
            raise JobError(
                "the part that is asked is the part that is read",
                wanted=f"--to {OTHER.get(source, 'another part')}",
                found=f"--from {source} --to {target}",
            )  # fmt: skip
        if isinstance(known, str) and isinstance(asked, str):
            return cls(known, asked)
        known_nm = RANGE if known == "all" else _nm(known)
        read = (known_nm,) if asked == "missing" else outside((known_nm,), _nm(asked))
        if not read:
            raise JobError("nothing is left to be read", found=f"--from {source} --to {target}")
        return cls("all" if known == "all" else "part", "part", read)

    @property
    def words(self) -> str:
        """For people."""
        if not self.read_nm:
            return f"{self.target} from {self.source}"
        return "from " + " and ".join(f"{low:g}-{high:g}" for low, high in self.read_nm) + " nm"

    def read(self, values: Floats, vocabulary: Vocabulary) -> Floats:
        """Of tokens (N, V), those that the model is shown; NaN elsewhere."""
        if self.read_nm:
            shown = np.zeros(values.shape[1], dtype=bool)
            for band in BANDS:
                if whole(self.read_nm, EDGES[band]):
                    shown[vocabulary.coefficient_columns(band)] = True
            if self.source == "all":
                shown[vocabulary.columns([n for n in ("jh", "jk") if n in vocabulary])] = True
        elif self.source == "all":
            shown = np.ones(values.shape[1], dtype=bool)
            if self.target in BANDS:
                # A colour of Gaia's holds the other band.
                shown[vocabulary.coefficient_columns(self.target)] = False
                shown[vocabulary.column("bprp")] = False
        else:
            shown = np.zeros(values.shape[1], dtype=bool)
            shown[vocabulary.coefficient_columns(self.source)] = True
        return np.where(shown, values, np.nan)


def _part(word: str, where: str) -> str | tuple[float, float]:
    """A word that means a part, or wavelengths; a band's own wavelengths are the band."""
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
class Inpainted:
    """Spectra that were read: completed, rejected as a run would, or with nothing to go by."""

    read: int
    written: int
    rejected: int
    without: int
    output: Path

    def lines(self) -> list[str]:
        """For people."""
        said = [f"{self.read:,} spectra read, {self.written:,} written to {self.output}"]
        if self.without:
            said.append(
                f"{self.without:,} stars left out: no coefficient to go by, or no G magnitude"
            )
        if self.rejected:
            said.append(f"{self.rejected:,} rows left out, which a run would reject too")
        return said


def complete(predictor: Predictor, made: Tokens, question: Question) -> Spectra:
    """Spectra of stars as read, with what was asked in its place; in electrons per second.

    Of a band that is asked, every coefficient is the model's; where what is missing is asked,
    those that are known stand as published. Where wavelengths are asked, so does a band that
    is read whole. NaN for stars without anything to go by.
    """
    vocabulary = predictor.bundle.vocabulary
    shown = question.read(made.values, vocabulary)
    magnitude = G_ZERO_POINT - 2.5 * np.log10(np.where(made.g_flux > 0, made.g_flux, np.nan))
    if question.read_nm:
        spectra, seen = fill(predictor, shown, made, question.read_nm)
        return spectra.at_magnitude(np.where(seen, magnitude, np.nan))
    answered = generate_spectra(predictor, shown)
    coefficients, errors = dict(answered.coefficients), dict(answered.errors)
    for band in BANDS:
        if band == question.target:
            continue
        at = vocabulary.coefficient_columns(band)
        known = np.isfinite(made.values[:, at])
        coefficients[band] = np.where(known, made.values[:, at], coefficients[band])
        errors[band] = np.where(known, made.errors[:, at], errors[band])
    spectra = Spectra(coefficients, errors, np.full(len(made), np.nan))
    nothing = np.isnan(shown).all(axis=1)
    return spectra.at_magnitude(np.where(nothing, np.nan, magnitude))


def inpaint(
    files: Sequence[Path],
    question: Question,
    output: Path,
    bundle: Bundle,
    *,
    companion: Sequence[Path] = (),
    plot: Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Inpainted:
    """Complete the spectra of files into one Parquet file of the archive's layout.

    ``plot`` is a PNG of the first few that were completed.

    Stars of one band alone need their G magnitude from a ``companion``: without it their
    coefficients have no scale. Raises InputError for a file that cannot be read, JobError for
    an output of another format.
    """
    if output.suffix.lower() != ".parquet":
        raise JobError("completed spectra are Parquet", wanted="NAME.parquet", found=output.name,
                       where="--output")  # fmt: skip
    if plot is not None and plot.suffix.lower() != ".png":
        raise JobError("a picture is a PNG", wanted="NAME.png", found=plot.name, where="--plot")
    predictor = Predictor(bundle, device)
    facts = {
        "catalogproc": __version__, "model": bundle.name, "model_hash": bundle.hash,
        "inpainted": question.words,
    }  # fmt: skip
    vocabulary, tally = predictor.bundle.vocabulary, RowCount()
    contract = spectra_table(_none(vocabulary), np.empty(0, np.int64), _beside(np.empty(0)))[1]
    without = 0
    batch = BATCH if question.read_nm else ROWS
    stars = read_stars(
        StarFiles(files, companion), vocabulary, all_inputs_job(vocabulary), tally, batch
    )
    with TableWriter(output, contract, facts) as writer:
        for good, made in stars:
            spectra = complete(predictor, made, question)
            kept = np.isfinite(spectra.g_mag)
            some, ids = spectra.rows(kept), good.column("source_id").to_numpy()[kept]
            writer.write(spectra_table(some, ids, _beside(some.g_mag))[0])
            without += int((~kept).sum())
            if plot is not None and len(some):
                few = np.arange(len(some)) < SHOWN
                title = f"XP spectra completed by {bundle.name}, {question.words}, 1 σ bands"
                draw_spectra(plot, some.rows(few), [str(star) for star in ids[few]], title)
                plot = None
            if progress is not None:
                progress(writer.rows + without, 0, "")
        tally.check(writer.rows, without)
    return Inpainted(tally.read, writer.rows, tally.rejected, without, output)


def _beside(g_mag: Floats) -> dict[str, Floats]:
    return {"phot_g_mean_mag": g_mag}


def _none(vocabulary: Vocabulary) -> Spectra:
    nothing = {band: np.empty((0, vocabulary.coefficients(band))) for band in BANDS}
    return Spectra(nothing, nothing, np.empty(0))
