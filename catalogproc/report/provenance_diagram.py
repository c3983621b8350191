"""Layout of the provenance diagram: inputs above, the run in the middle, its tables below.

The template ``provenance.svg.jinja`` draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from catalogproc.errors import plural
from catalogproc.rundir.manifest import InputFile, RunIdentity
from catalogproc.rundir.receipts import Receipt

WIDTH, GAP, MARGIN = 400, 14, 8
"""Units of the SVG; at this width the diagram is readable on a phone."""
_LINE, _TITLE, _ARROW = 17, 20, 28
_LETTER_WIDTH = 7.0
"""Upper limit of the mean width of a letter, for cutting texts to their box."""

_Content = tuple[str, Sequence[str]]


@dataclass(frozen=True)
class Box:
    """A box with a title and lines of text, already cut to its width."""

    x: float
    y: int
    width: float
    height: int
    title: str
    lines: tuple[str, ...]
    emphasised: bool


@dataclass(frozen=True)
class Diagram:
    """Boxes, and the (x, y) of the top of each downward arrow."""

    title: str
    width: int
    height: int
    boxes: tuple[Box, ...]
    arrows: tuple[tuple[float, int], ...]


def provenance_diagram(identity: RunIdentity, receipts: Sequence[Receipt]) -> Diagram:
    """Lay out the provenance of a run.

    Parameters
    ----------
    identity
        Inputs, model and job of the run.
    receipts
        The receipts of its finished chunks.
    """
    written = sum(receipt.rows_written for receipt in receipts)
    rejected = sum(receipt.rows_rejected for receipt in receipts)
    auxiliary = _files(identity.auxiliary) if identity.auxiliary else ("none",)
    boxes: list[Box] = []
    arrows: list[tuple[float, int]] = []
    y = _add_row(boxes, [("spectra", _files(identity.inputs)), ("gaia_source", auxiliary)], MARGIN)
    y = _add_row(
        boxes,
        [
            ("model", (str(identity.model.get("name", "")), identity.model_hash[:16])),
            ("job", (str(identity.job.get("name", "")), identity.job_hash[:16])),
        ],
        y + GAP,
    )
    y = _add_arrows(arrows, y)
    run = (f"run {identity.run_id}", _run_lines(receipts))
    y = _add_row(boxes, [run], y, emphasised=True)
    y = _add_arrows(arrows, y)
    y = _add_row(
        boxes,
        [
            ("catalog/", (plural(written, "star"), _parts([r.catalog_part for r in receipts]))),
            ("rejected/", (plural(rejected, "row"), _parts([r.rejected_part for r in receipts]))),
        ],
        y,
    )
    checks = (f"receipts/: {len(receipts):,}, SHA-256 of every part",
              "provenance.json: W3C PROV, IVOA terms")  # fmt: skip
    y = _add_row(boxes, [("checksums and metadata", checks)], y + GAP)
    title = "Provenance: inputs, model and job; the run; the tables that it wrote"
    return Diagram(title, WIDTH, y + MARGIN, tuple(boxes), tuple(arrows))


def _run_lines(receipts: Sequence[Receipt]) -> list[str]:
    """Return software, devices, time span and number of chunks as lines of text."""
    versions = sorted({receipt.versions.get("catalogproc", "unknown") for receipt in receipts})
    devices = sorted({receipt.device for receipt in receipts})
    lines = [f"catalogproc {', '.join(versions)} on {', '.join(devices)}"]
    if receipts:
        started = min(receipt.started for receipt in receipts)[:16]
        finished = max(receipt.finished for receipt in receipts)[:16]
        lines.append(f"{started} to {finished}".replace("T", " "))
    return [*lines, plural(len(receipts), "chunk")]


def _files(files: Sequence[InputFile]) -> tuple[str, ...]:
    name = files[0].path.rpartition("/")[2] if files else ""
    return (name, f"and {len(files) - 1:,} more") if len(files) > 1 else (name,)


def _parts(paths: Sequence[str]) -> str:
    count = sum(map(bool, paths))
    return f"{plural(count, 'part')}, hashed"


def _add_row(
    boxes: list[Box], contents: Sequence[_Content], y: int, *, emphasised: bool = False
) -> int:
    """Append boxes of equal size side by side, and return the y of their lower edge."""
    width = (WIDTH - 2 * MARGIN - GAP * (len(contents) - 1)) / len(contents)
    height = _TITLE + _LINE * max(len(lines) for _, lines in contents) + 16
    for number, (title, lines) in enumerate(contents):
        x = MARGIN + number * (width + GAP)
        cut = tuple(_cut(line, width) for line in lines)
        boxes.append(Box(x, y, width, height, _cut(title, width), cut, emphasised))
    return y + height


def _add_arrows(arrows: list[tuple[float, int]], y: int) -> int:
    """Append two arrows, and return the y below them."""
    arrows += [(WIDTH * 0.27, y), (WIDTH * 0.73, y)]
    return y + _ARROW


def _cut(text: str, width: float) -> str:
    """Return the text, shortened where it is wider than its box."""
    longest = int((width - 20) / _LETTER_WIDTH)
    return text if len(text) <= longest else text[: longest - 1] + "…"
