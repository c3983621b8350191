"""Sections of a crosscheck: Markdown, CSV tables and pictures of one check."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from catalogproc.evaluation.scorecard import figure, markdown
from catalogproc.report.page import Figure


@dataclass(frozen=True, eq=False)
class Section:
    """One check, as it is written.

    Attributes
    ----------
    name, title
        Identifier in the page, and heading.
    lines, more
        Markdown below the heading: what is printed, and what only the files have.
    files
        Content of CSV files by name.
    figures
        Pictures.
    caution
        What a reader must know before the numbers; "" for nothing.
    """

    name: str
    title: str
    lines: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()
    caution: str = ""
    more: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """What is printed, as Markdown with a heading."""
        caution = ["", f"**Caution.** {self.caution}"] if self.caution else []
        return "\n".join([f"## {self.title}", *caution, "", *self.lines])

    @property
    def markdown(self) -> str:
        """The whole section as Markdown, with its heading."""
        return "\n".join([self.summary, *self.more])


def table(rows: Sequence[Any]) -> Iterator[str]:
    """Yield the lines of a Markdown table of dataclasses, a row each.

    Parameters
    ----------
    rows
        One or more of the same class, of texts and numbers.
    """
    names = [field.name for field in fields(rows[0])]
    header = tuple(name.replace("_", " ") for name in names)
    cells = [
        tuple(
            value if isinstance(value, str) else f"{value:,}" if isinstance(value, int)
            else figure(value)
            for value in asdict(row).values()
        )
        for row in rows
    ]  # fmt: skip
    return markdown(header, cells)


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV; floats with six digits, NaN as nan.

    Parameters
    ----------
    rows
        With the same keys.
    """
    out = io.StringIO()
    if rows:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(rows[0])
        for row in rows:
            writer.writerow(f"{x:.6g}" if isinstance(x, float) else x for x in row.values())
    return out.getvalue()
