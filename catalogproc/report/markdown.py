"""The Markdown of our own cards as HTML: headings, paragraphs, lists, tables, code, **bold**.

Everything is escaped first; there are no links and no images, so that nothing of a card can
reach out of the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from itertools import groupby

_HEADING = re.compile(r"(#{1,6})\s+(.*)")
_RULE = re.compile(r"\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$")


def html(text: str, *, heading: int = 3) -> str:
    """Markdown as HTML; its highest headings become ``<h{heading}>``."""
    return "\n".join(_blocks(text.splitlines(), heading))


def _blocks(lines: list[str], heading: int) -> Iterator[str]:
    kinds = groupby(lines, key=_kind)
    for kind, group in kinds:
        held = [line.strip() for line in group]
        if kind == "heading":
            for line in held:
                match = _HEADING.match(line)
                assert match is not None
                level = min(heading - 1 + len(match[1]), 6)
                yield f"<h{level}>{_inline(match[2])}</h{level}>"
        elif kind == "table":
            yield _table(held)
        elif kind == "list":
            items = "".join(f"<li>{_inline(line[1:].strip())}</li>" for line in held)
            yield f"<ul>{items}</ul>"
        elif kind == "text":
            yield f"<p>{_inline(' '.join(held))}</p>"


def _kind(line: str) -> str:
    line = line.strip()
    if not line:
        return ""
    if _HEADING.match(line):
        return "heading"
    if line.startswith("|"):
        return "table"
    return "list" if line[:2] in ("- ", "* ") else "text"


def _table(lines: list[str]) -> str:
    rows = [line.strip("|").split("|") for line in lines]
    head: list[list[str]] = []
    if len(lines) > 1 and _RULE.match(lines[1]):
        head, rows = rows[:1], rows[2:]
        if not any(cell.strip() for cell in head[0]):
            head = []
    text = "".join(_row(row, "th") for row in head) + "".join(_row(row, "td") for row in rows)
    kind = "" if head else ' class="facts"'
    return f'<div class="wide"><table{kind}>{text}</table></div>'


def _row(cells: list[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{_inline(cell.strip())}</{tag}>" for cell in cells) + "</tr>"


def _inline(text: str) -> str:
    text = escape(text)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)
