"""Where the files that ship with catalogproc lie: schemas, model, jobs, grids."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from catalogproc.errors import Refusal

KINDS = ("schemas", "model", "jobs", "grids")


@cache
def shipped(kind: str) -> Path:
    """The folder of shipped files of one kind.

    Installed, it is packed as ``catalogproc/_data/<kind>``; in a checkout it stands
    beside pyproject.toml. The packed one is taken where both exist.

    Raises
    ------
    Refusal
        The kind is unknown, or neither folder exists.
    """
    if kind not in KINDS:
        raise Refusal("no such kind of shipped file", wanted=" | ".join(KINDS), found=kind)
    package = Path(__file__).resolve().parent
    packed, checkout = package / "_data" / kind, package.parent / kind
    for folder in (packed, checkout):
        if folder.is_dir():
            return folder
    raise Refusal(
        f"the files that ship as {kind}/ are not there",
        wanted=f"{packed} or {checkout}",
        todo="install catalogproc again: pip install --force-reinstall catalogproc",
    )
