"""Provenance as a picture: what was used, what was done, what came out; drawn for a phone."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from catalogproc.rundir.manifest import RunIdentity
from catalogproc.rundir.receipts import Receipt

WIDTH, GAP, MARGIN = 400, 14, 8
_LINE, _TITLE = 17, 20
_LETTERS = 7.0
"""About how wide a letter is drawn at most."""

Box = tuple[str, Sequence[str]]


def picture(identity: RunIdentity, receipts: Sequence[Receipt]) -> str:
    """An SVG element: inputs, model and job above, the run amid, its tables below."""
    written, rejected = (sum(getattr(r, n) for r in receipts) for n in _ROWS)
    versions = sorted({r.versions.get("catalogproc", "unknown") for r in receipts})
    devices = sorted({r.device for r in receipts})
    moments = sorted(r.started for r in receipts)[:1] + sorted(r.finished for r in receipts)[-1:]
    used = [
        ("spectra", _files(identity.inputs)),
        ("gaia_source", _files(identity.companions) if identity.companions else ("none",)),
        ("model", (str(identity.model.get("name", "")), identity.model_hash[:16])),
        ("job", (str(identity.job.get("name", "")), identity.job_hash[:16])),
    ]
    when = [f"{moments[0][:16]} to {moments[-1][:16]}".replace("T", " ")] if moments else []
    run = [f"catalogproc {', '.join(versions)} on {', '.join(devices)}", *when,
           f"{len(receipts):,} chunks"]  # fmt: skip
    made = [
        ("catalog/", (f"{written:,} stars", _parts(receipts, "catalog_part"))),
        ("rejected/", (f"{rejected:,} rows", _parts(receipts, "rejected_part"))),
    ]
    parts: list[str] = []
    y = _row(parts, used[:2], MARGIN)
    y = _row(parts, used[2:], y + GAP)
    y = _arrows(parts, y)
    y = _row(parts, [(f"run {identity.run_id}", run)], y, strong=True)
    y = _arrows(parts, y)
    y = _row(parts, made, y)
    proof = ("what proves it", (f"receipts/: {len(receipts):,}, a hash of every part",
                                "provenance.json: W3C PROV, IVOA terms"))  # fmt: skip
    y = _row(parts, [proof], y + GAP)
    title = "Provenance: inputs, model and job; the run; the tables that it made"
    return (
        f'<svg viewBox="0 0 {WIDTH} {y + MARGIN}" role="img" aria-label="{escape(title)}" '
        'xmlns="http://www.w3.org/2000/svg" font-size="13" fill="var(--ink)">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


_ROWS = ("rows_written", "rows_rejected")


def _files(files: Sequence[object]) -> tuple[str, ...]:
    first = getattr(files[0], "path", "").rpartition("/")[2] if files else ""
    more = (f"and {len(files) - 1:,} more",) if len(files) > 1 else ()
    return (first, *more)


def _parts(receipts: Sequence[Receipt], name: str) -> str:
    count = sum(bool(getattr(receipt, name)) for receipt in receipts)
    return f"{count:,} part{'s' * (count != 1)}, hashed"


def _row(parts: list[str], boxes: Sequence[Box], y: int, *, strong: bool = False) -> int:
    """Draw boxes side by side; where they end."""
    width = (WIDTH - 2 * MARGIN - GAP * (len(boxes) - 1)) / len(boxes)
    height = _TITLE + _LINE * max(len(lines) for _, lines in boxes) + 16
    stroke = 'stroke="var(--accent)" stroke-width="2"' if strong else 'stroke="var(--line)"'
    for number, (title, lines) in enumerate(boxes):
        x = MARGIN + number * (width + GAP)
        parts.append(
            f'<rect x="{x:g}" y="{y}" width="{width:g}" height="{height}" rx="8" '
            f'fill="var(--card)" {stroke}/>'
            f'<text x="{x + 12:g}" y="{y + 24}" font-weight="600">{_text(title, width)}</text>'
        )
        for place, line in enumerate(lines):
            parts.append(
                f'<text x="{x + 12:g}" y="{y + 24 + _TITLE - 2 + place * _LINE}" '
                f'fill="var(--soft)">{_text(line, width)}</text>'
            )
    return y + height


def _arrows(parts: list[str], y: int) -> int:
    for x in (WIDTH * 0.27, WIDTH * 0.73):
        parts.append(
            f'<path d="M{x:g} {y + 4} V{y + 22} m-5 -7 l5 7 l5 -7" fill="none" '
            'stroke="var(--accent)" stroke-width="2"/>'
        )
    return y + 28


def _text(text: str, width: float) -> str:
    """Escaped, and cut where the box ends."""
    most = int((width - 20) / _LETTERS)
    return escape(text if len(text) <= most else text[: most - 1] + "…")
