"""The part of a spectrum that is missing, from the part that is there.

A spectrum is known by its coefficients, which belong to BP or to RP: wavelengths below and
above 640 nm, where the two are joined. What is asked is a band, a range of wavelengths within
one, or whatever coefficients a star lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc import __version__
from catalogproc.catalog.records.writer import TableWriter
from catalogproc.contract import Contract
from catalogproc.errors import JobError
from catalogproc.features.spectra import G_ZERO_POINT
from catalogproc.features.tokens import Tokens
from catalogproc.network.bundle import Bundle
from catalogproc.network.predictor import Predictor
from catalogproc.science.generation.files import spectra_table
from catalogproc.science.generation.spectra import Spectra, generate_spectra
from catalogproc.science.reading import everything, read_stars
from catalogproc.vocabulary import BANDS, Vocabulary

Floats = NDArray[np.float64]
Progress = Callable[[int, int, str], None]

JOINED = 640.0
"""nm: below it GaiaXPy's merged spectrum is BP's, above it RP's, but for a few nm."""

RANGE = (336.0, 1020.0)
"""nm; what GaiaXPy samples."""

OTHER = {"bp": "rp", "rp": "bp"}


@dataclass(frozen=True)
class Question:
    """What is read of a spectrum, and what is asked.

    ``source`` is a band, or ``all`` that is there; ``target`` a band, or ``missing``: every
    coefficient that a star lacks, the others standing as they were measured.
    """

    source: str
    target: str

    @classmethod
    def of(cls, source: str, target: str) -> Question:
        """From words: ``bp``, ``rp``, ``all``, ``missing``, or wavelengths as ``336-640`` in nm.

        Raises JobError for words that mean nothing, or that answer themselves.
        """
        known, asked = _band(source, "--from"), _band(target, "--to")
        if known == "missing":
            raise JobError("what is missing cannot be read", found=source, where="--from")
        if asked == "all":
            asked = "missing"
        if known == asked:
            raise JobError(
                "the part that is asked is the part that is read",
                wanted=f"--to {OTHER[known]}", found=f"--from {source} --to {target}",
            )  # fmt: skip
        return cls(known, asked)

    def read(self, values: Floats, vocabulary: Vocabulary) -> Floats:
        """Of tokens (N, V), those that the model is shown; NaN elsewhere."""
        if self.source == "all":
            shown = np.ones(values.shape[1], dtype=bool)
            if self.target in BANDS:
                # A colour of Gaia's holds the other band.
                shown[vocabulary.coefficient_columns(self.target)] = False
                shown[vocabulary.column("bprp")] = False
        else:
            shown = np.zeros(values.shape[1], dtype=bool)
            shown[vocabulary.coefficient_columns(self.source)] = True
        return np.where(shown, values, np.nan)


def _band(word: str, where: str) -> str:
    if word in (*BANDS, "all", "missing"):
        return word
    low, dash, high = word.partition("-")
    try:
        ends = (float(low), float(high)) if dash else None
    except ValueError:
        ends = None
    if ends is None or not RANGE[0] <= ends[0] < ends[1] <= RANGE[1]:
        raise JobError(
            "a part of a spectrum", wanted="bp, rp, all, missing, or wavelengths in nm as 336-640",
            found=word, where=where,
        )  # fmt: skip
    if ends[1] <= JOINED:
        return "bp"
    if ends[0] >= JOINED:
        return "rp"
    raise JobError(
        "these wavelengths belong to both bands, whose coefficients are known together or not",
        wanted=f"a range below or above {JOINED:.0f} nm", found=word, where=where,
    )  # fmt: skip


@dataclass(frozen=True)
class Inpainted:
    """How many spectra were completed, and how many had nothing to go by."""

    stars: int
    without: int
    output: Path

    def lines(self) -> list[str]:
        """For people."""
        said = [f"{self.stars:,} spectra written to {self.output}"]
        if self.without:
            said.append(
                f"{self.without:,} stars left out: no coefficient to go by, or no G magnitude"
            )
        return said


def complete(predictor: Predictor, made: Tokens, question: Question) -> Spectra:
    """Spectra of stars as read, with what was asked in its place; in electrons per second.

    Of a band that is asked, every coefficient is the model's; where what is missing is asked,
    those that are known stand as published. NaN for stars without anything to go by.
    """
    vocabulary = predictor.bundle.vocabulary
    shown = question.read(made.values, vocabulary)
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
    magnitude = G_ZERO_POINT - 2.5 * np.log10(np.where(made.g_flux > 0, made.g_flux, np.nan))
    return spectra.at_magnitude(np.where(nothing, np.nan, magnitude))


def inpaint(
    files: Sequence[Path],
    question: Question,
    output: Path,
    bundle: Bundle,
    *,
    companion: Sequence[Path] = (),
    device: str = "cpu",
    progress: Progress | None = None,
) -> Inpainted:
    """Complete the spectra of files into one Parquet file of the archive's layout.

    Stars of one band alone need their G magnitude from a ``companion``: without it their
    coefficients have no scale. Raises InputError for a file that cannot be read, JobError for
    an output of another format.
    """
    if output.suffix.lower() != ".parquet":
        raise JobError("completed spectra are Parquet", wanted="NAME.parquet", found=output.name,
                       where="--output")  # fmt: skip
    predictor = Predictor(bundle, device)
    facts = {
        "catalogproc": __version__, "model": bundle.name, "model_hash": bundle.hash,
        "inpainted": f"{question.target} from {question.source}",
    }  # fmt: skip
    written = without = 0
    writer: TableWriter | None = None
    for table, contract, left in _completed(files, companion, predictor, question):
        if writer is None:
            writer = TableWriter(output, contract, facts).__enter__()
        writer.write(table)
        written, without = written + table.num_rows, without + left
        if progress is not None:
            progress(written + without, 0, "")
    if writer is not None:
        writer.__exit__(None, None, None)
    return Inpainted(written, without, output)


def _completed(
    files: Sequence[Path], companion: Sequence[Path], predictor: Predictor, question: Question
) -> Iterator[tuple[pa.Table, Contract, int]]:
    vocabulary = predictor.bundle.vocabulary
    for good, made in read_stars(files, companion, vocabulary, everything(vocabulary)):
        spectra = complete(predictor, made, question)
        kept = np.isfinite(spectra.g_mag)
        some = Spectra(
            {band: x[kept] for band, x in spectra.coefficients.items()},
            {band: x[kept] for band, x in spectra.errors.items()},
            spectra.g_mag[kept],
        )
        ids = good.column("source_id").to_numpy()[kept]
        table, contract = spectra_table(some, ids, {"phot_g_mean_mag": some.g_mag})
        yield table, contract, int((~kept).sum())
