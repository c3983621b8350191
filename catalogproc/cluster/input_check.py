"""Check before a run that its input has stars: screen the first rows of each file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from catalogproc.cluster.remote_input import looked_at
from catalogproc.errors import InputError, Refusal, plural
from catalogproc.inference.screening import Duplicates, screen
from catalogproc.io.remote_file import File
from catalogproc.io.staging import named
from catalogproc.readers.star_rows import open_spectra
from catalogproc.readers.xp import assumed_units, read_spectra
from catalogproc.vocabulary import Vocabulary

SAMPLE_ROWS = 1000
"""Rows of each file that are screened."""
SHOWN = 10
"""Number of lines about single files."""


def input_lines(inputs: Sequence[File], vocabulary: Vocabulary) -> list[str]:
    """Screen the first rows of each file, and say what is not accepted.

    Files at addresses are left to the workers (:func:`looked_at`).

    Parameters
    ----------
    inputs
        Files of spectra.
    vocabulary
        The model's tokens.

    Returns
    -------
    list of str
        One line per file of which no row is accepted, with the reasons, and per part of a file
        that is not read, up to SHOWN of them; the units that are assumed; then the number of
        accepted rows.

    Raises
    ------
    Refusal
        No row of any file is accepted.
    """
    lines: list[str] = []
    faults: list[InputError] = []
    assumed: Counter[str] = Counter()
    read = accepted = 0
    read_now = looked_at(inputs)
    if apart := len(inputs) - len(read_now):
        lines.append(f"not looked at before the run: {plural(apart, 'file')} at addresses")
    for path in read_now:
        try:
            reasons = _screened(path, vocabulary)
            lines += [f"{named(path)}: not read: {other}" for other in open_spectra(path).unread]
            assumed[assumed_units(path, vocabulary.data_release)] += 1
        except InputError as error:
            lines.append(f"{named(path)}: {_in_a_line(error)}")
            faults.append(error)
            continue
        read += reasons.total()
        accepted += reasons[""]
        if reasons.total() and not reasons[""]:
            why = ", ".join(f"{n:,} {reason}" for reason, n in sorted(reasons.items()) if reason)
            lines.append(f"{named(path)}: every one of the first rows is rejected: {why}")
    if len(inputs) == len(faults) == 1:
        raise Refusal.of(faults[0])
    if not accepted and read_now:
        raise Refusal(
            "no star of the input would be in the catalog",
            wanted="spectra with coefficients and a source_id",
            found="; ".join(lines[:5]) or "no rows",
            where=", ".join(named(path) for path in inputs[:3]),
            advice=next((error.advice for error in faults if error.advice), None),
        )
    if len(lines) > SHOWN:
        lines[SHOWN:] = [f"and {len(lines) - SHOWN:,} more lines about single files"]
    lines += [
        f"no unit stated in {plural(count, 'file')} of spectra, assumed: {columns}"
        for columns, count in assumed.items()
        if columns
    ]
    return [*lines, f"{accepted:,} of the first {plural(read, 'row')} accepted"]


def _in_a_line(error: InputError) -> str:
    found = "" if error.found is None else f" (found {error.found})"
    return f"{error.message}{found}"


def _screened(path: File, vocabulary: Vocabulary) -> Counter[str]:
    """Number of the first rows by the reason of their rejection; accepted ones have none."""
    return Counter(_reasons(path, vocabulary))


def _reasons(path: File, vocabulary: Vocabulary) -> Iterator[str]:
    seen = Duplicates()
    for batch in read_spectra(path, rows=SAMPLE_ROWS, release=vocabulary.data_release):
        good, rejected = screen(batch, vocabulary, seen, named(path))
        yield from [""] * good.num_rows
        yield from rejected.column("reason").to_pylist()
