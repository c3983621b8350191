"""Find what ships with catalogproc (schemas, model, jobs, ...), and optional libraries."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

from catalogproc.errors import Refusal

KINDS = ("schemas", "model", "jobs", "grids", "examples")


@cache
def shipped(kind: str) -> Path:
    """Return the folder of the shipped files of one kind.

    Parameters
    ----------
    kind
        One of KINDS.

    Returns
    -------
    Path
        ``catalogproc/_data/<kind>`` of an installed package, else the folder beside
        pyproject.toml in a checkout.

    Raises
    ------
    Refusal
        The kind is unknown, or neither folder exists.
    """
    if kind not in KINDS:
        raise Refusal("unknown kind of shipped files", wanted=" | ".join(KINDS), found=kind)
    package = Path(__file__).resolve().parent
    packed, checkout = package / "_data" / kind, package.parent / kind
    for folder in (packed, checkout):
        if folder.is_dir():
            return folder
    raise Refusal(
        f"the shipped files of {kind}/ are missing",
        wanted=f"{packed} or {checkout}",
        advice="install catalogproc again: pip install --force-reinstall catalogproc",
    )


def optional_module(name: str, extra: str) -> ModuleType:
    """Import a library that ``pip install catalogproc`` alone does not bring.

    Parameters
    ----------
    name
        The module to import.
    extra
        The extra of catalogproc that installs it.

    Raises
    ------
    Refusal
        The library is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        library = name.split(".")[0]
        if not (error.name or "").startswith(library):
            raise
        raise Refusal(
            f"this needs the library {library}, which is not installed",
            advice=f"pip install 'catalogproc[{extra}]'",
        ) from None
