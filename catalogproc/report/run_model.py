"""The model of a run: its bundle, and its card (CARD.md) as HTML for the report page."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt
from markdown_it.token import Token

from catalogproc.errors import BundleError
from catalogproc.rundir.manifest import RunIdentity

if TYPE_CHECKING:
    from catalogproc.network.bundle import Bundle

PNG = b"\x89PNG\r\n\x1a\n"
LARGEST_PICTURE = 500_000
"""Bytes of a card's picture that is embedded in the page."""

HEADING_SHIFT = 2
"""A first-level heading of a card becomes <h3>: <h1> and <h2> belong to the page."""


def find_bundle(
    identity: RunIdentity, model: str | Path | None, folder: Path | None = None
) -> Bundle | None:
    """Load the bundle that a run used, or return None where it is not found.

    Parameters
    ----------
    identity
        The run; only a bundle with the hash of its model is returned.
    model
        Folder or shipped name, tried first; then the run's own name of it and the default.
    folder
        The run's folder, which has the matrices of a user's release.
    """
    from catalogproc.network.bundle import load_bundle

    for place in (model, identity.model.get("name"), "default"):
        try:
            bundle = load_bundle(place) if place else None
        except BundleError:
            continue
        if bundle is not None and bundle.hash == identity.model_hash:
            return bundle.for_release(replace(identity.data_release, folder=str(folder or "")))
    return None


def model_card(bundle: Bundle | None) -> str:
    """Return the card of a run's model as HTML, or "" where the model or its card is missing.

    Parameters
    ----------
    bundle
        The model, as :func:`find_bundle` returns it.
    """
    return card_html(_read_card(bundle.path), bundle.path) if bundle is not None else ""


def _read_card(bundle: Path) -> str:
    """Return the text of a card; "" where it is no text file inside of the bundle's folder."""
    from catalogproc.network.bundle import bundle_file

    try:
        card = bundle_file(bundle, "CARD.md")
        return card.read_text(encoding="utf-8") if card is not None else ""
    except (BundleError, OSError, UnicodeDecodeError):
        return ""


def card_html(text: str, folder: Path | None = None) -> str:
    """Convert Markdown (CommonMark and tables) to HTML that cannot reach out of the page.

    HTML in the text is escaped. Of a link its text is left. An image is embedded if it is a PNG
    file of the folder, else its description is left.

    Parameters
    ----------
    text
        The Markdown.
    folder
        The bundle's folder.
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
