"""Patterns of paths in remote file systems: ``*``, ``[…]``, and ``**`` for any number of steps."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase


def steps(path: str) -> tuple[str, ...]:
    """Return the steps of a path."""
    return tuple(part for part in path.split("/") if part)


def is_pattern(name: str) -> bool:
    """Return whether a step of a path is a pattern."""
    return any(mark in name for mark in "*[")


def fits(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether path steps match a pattern's; ** matches any number of steps."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(fits(names[skip:], pattern[1:]) for skip in range(len(names) + 1))
    hidden = bool(names) and names[0].startswith(".")
    here = bool(names) and not hidden and fnmatchcase(names[0], pattern[0])
    return here and fits(names[1:], pattern[1:])
