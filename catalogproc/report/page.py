"""HTML pages that need no other file and no network: templates, filters and security policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Content security policy of a page: load nothing, run no script."""

Figure = tuple[str, str, str, str]
"""Identifier, title, SVG and caption."""


def environment(**filters: Callable[..., Any]) -> Environment:
    """Return the templates of this folder, which escape every text.

    Parameters
    ----------
    filters
        Further filters, by name.
    """
    loader = FileSystemLoader(Path(__file__).parent)
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    made.filters |= {
        "number": lambda count: f"{count:,}",
        "counted": counted,
        "stars": lambda count: counted(count, "star"),
        "percent": lambda part, total: f"{100 * part / total:.1f} %" if total else "none",
        "minute": lambda moment: moment[:16].replace("T", " "),
    }
    made.filters |= filters
    return made


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, in the plural where it is not one.

    Parameters
    ----------
    count, noun
        The number, and the noun in the singular.
    """
    return f"{count:,} {noun}{'s' * (count != 1)}"
