"""A model on the page of a run: its scores, and its card (CARD.md) as HTML."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from catalogproc.errors import BundleError
from catalogproc.report.known_labels import LABELS

if TYPE_CHECKING:
    from catalogproc.network.bundle import Bundle

PNG = b"\x89PNG\r\n\x1a\n"
LARGEST_PICTURE = 500_000
"""Bytes of a card's picture that is embedded in the page."""

HEADING_SHIFT = 2
"""A first-level heading of a card becomes <h3>: <h1> and <h2> belong to the page."""

SCORES_HEADER = ("label", "test stars", "scatter", "bias", "R2", "spread of true", "within 1 σ")
_SHOWN_INPUTS = "b"
"""The set of inputs of scores.json that is shown: 30 + 30 coefficients and three colours."""


def model_scores(bundle: Bundle | None) -> list[tuple[str, ...]]:
    """Return the scores of a model on its test stars, one row under SCORES_HEADER a label.

    They are those of scores.json in the bundle's folder; none where it is missing or cannot be
    read.

    Parameters
    ----------
    bundle
        The model, as :func:`catalogproc.report.run_model.find_bundle` returns it.
    """
    if bundle is None:
        return []
    try:
        scores = json.loads(_read_file(bundle.path, "scores.json"))[_SHOWN_INPUTS]
        known = [score for score in scores if score["label"] in LABELS]
        return [_score_cells(score) for score in known]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def _score_cells(score: Mapping[str, Any]) -> tuple[str, ...]:
    name, unit, _, digits = LABELS[score["label"]]
    return (
        f"{name} [{unit}]", f"{score['stars']:,}", format(score["scatter"], digits),
        format(score["bias"], f"+{digits}"), _optional(score.get("r2"), ".2f"),
        _optional(score.get("spread"), digits), f"{100 * score['within_1_sigma']:.0f} %",
    )  # fmt: skip


def _optional(value: float | None, digits: str) -> str:
    return "" if value is None else format(value, digits)


def model_card(bundle: Bundle | None) -> str:
    """Return the card of a run's model as HTML, or "" where the model or its card is missing.

    Parameters
    ----------
    bundle
        The model, as :func:`catalogproc.report.run_model.find_bundle` returns it.
    """
    if bundle is None:
        return ""
    return card_html(_read_file(bundle.path, "CARD.md"), bundle.path, folded=True)


def _read_file(bundle: Path, name: str) -> str:
    """Return a text of a bundle; "" where it is no text file inside of the bundle's folder."""
    from catalogproc.network.bundle import bundle_file

    try:
        found = bundle_file(bundle, name)
        return found.read_text(encoding="utf-8") if found is not None else ""
    except (BundleError, OSError, UnicodeDecodeError):
        return ""


def card_html(text: str, folder: Path | None = None, *, folded: bool = False) -> str:
    """Convert Markdown (CommonMark and tables) to HTML that cannot reach out of the page.

    HTML in the text is escaped. Of a link its text is left. An image is embedded if it is a PNG
    file of the folder, else its description is left.

    Parameters
    ----------
    text
        The Markdown.
    folder
        The bundle's folder.
    folded
        What is long is shown on request: a table of facts at the head, and each second-level
        section that has a table or an image.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("link_open", _nothing)
    parser.add_render_rule("link_close", _nothing)
    parser.add_render_rule("image", _description)
    tokens = _facts_tables(parser.parse(text))
    for token in tokens:
        for child in token.children or ():
            if child.type == "image" and folder is not None:
                _embed(child, folder)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + HEADING_SHIFT, 6)}"
    if folded:
        tokens = _folded(tokens)
    return str(parser.renderer.render(tokens, parser.options, {}))


def _nothing(*_: object) -> str:
    return ""


def _embed(image: Token, folder: Path) -> None:
    """Make an image that is a PNG file of the folder HTML with its bytes."""
    from catalogproc.network.bundle import bundle_file

    name = str(image.attrs.get("src", ""))
    if not re.fullmatch(r"[\w-]+\.png", name):
        return
    try:
        path = bundle_file(folder, name)
        data = path.read_bytes() if path is not None else b""
    except (BundleError, OSError):
        return
    if data.startswith(PNG) and len(data) <= LARGEST_PICTURE:
        address = f"data:image/png;base64,{b64encode(data).decode()}"
        picture = f'<img class="picture" src="{address}" alt="{escape(image.content)}">'
        image.type, image.content = "html_inline", picture


def _description(_: object, tokens: Sequence[Token], index: int, *__: object) -> str:
    return f"<em>Figure (not shown): {escape(tokens[index].content)}</em>"


def _facts_tables(tokens: Sequence[Token]) -> list[Token]:
    """Return the tokens with tables as the page styles them: scrollable; no empty header."""
    result: list[Token] = []
    for number, token in enumerate(tokens):
        if token.type == "table_open":
            result.append(_wrapper("open"))
            end = next(i for i in range(number, len(tokens)) if tokens[i].type == "thead_close")
            header = tokens[number + 1 : end + 1]
            if not any(part.content for part in header):
                token.attrSet("class", "facts")
                for part in header:
                    part.hidden = True
        result.append(token)
        if token.type == "table_close":
            result.append(_wrapper("close"))
    return result


def _wrapper(side: str) -> Token:
    if side == "open":
        return Token("div_open", "div", 1, attrs={"class": "wide"}, block=True)
    return Token("div_close", "div", -1, block=True)


def _folded(tokens: Sequence[Token]) -> list[Token]:
    """Return the tokens with the table of facts and the long sections inside of <details>."""
    result: list[Token] = []
    heads = [i for i, token in enumerate(tokens) if _is_section(token)]
    for start, end in pairwise([0, *heads, len(tokens)]):
        part = list(tokens[start:end])
        if part and _is_section(part[0]) and any(_is_long(token) for token in part):
            part[0].tag = part[2].tag = "summary"
            part = [_details("open"), *part, _details("close")]
        elif start == 0:
            part = _fold_facts(part)
        result += part
    return result


def _is_section(token: Token) -> bool:
    return token.type == "heading_open" and token.tag == f"h{2 + HEADING_SHIFT}"


def _is_long(token: Token) -> bool:
    images = any(child.type in ("image", "html_inline") for child in token.children or ())
    return token.type == "table_open" or images


def _fold_facts(part: list[Token]) -> list[Token]:
    """Return the head of a card with its table of facts inside of <details>."""
    kinds = [token.type for token in part]
    facts = [i for i, token in enumerate(part) if token.attrs.get("class") == "facts"]
    if not facts:
        return part
    start, end = facts[0] - 1, kinds.index("div_close", facts[0]) + 1
    words = Token("text", "", 0, content="Training data, network and hash")
    title = [
        Token("summary_open", "summary", 1, block=True),
        Token("inline", "", 0, children=[words], block=True),
        Token("summary_close", "summary", -1, block=True),
    ]
    table = [_details("open"), *title, *part[start:end], _details("close")]
    return [*part[:start], *table, *part[end:]]


def _details(side: str) -> Token:
    return Token(f"details_{side}", "details", 1 if side == "open" else -1, block=True)
