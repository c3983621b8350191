"""Random damage: changed bytes of a file, changed values of a TOML or JSON document."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SECONDS = 20
"""Seconds after which a case counts as a hang."""

ODD = (
    None, True, False, 0, 1, -1, 2**31, 2**63 - 1, -(2**63), 1e308, -1e-308, float("inf"),
    float("nan"), "", "a", "../../etc/passwd", "/dev/zero", "\x00", "ſtar\u202e", "{0}", "%s",
    "1e9999", "a" * 5000, [], [[]], {}, {"a": 1}, [1, "a", None], "2026-13-45T99:99:99+00:00",
)  # fmt: skip


def damaged(content: bytes, dice: random.Random) -> bytes:
    """Return bytes with one to three pieces of damage, often near the ends.

    Parameters
    ----------
    content
        The bytes.
    dice
        The random numbers.
    """
    data = bytearray(content)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        near = dice.randrange(min(3000, len(data) + 1))
        place = dice.choice((dice.randrange(len(data) + 1), near, max(len(data) - near - 1, 0)))
        match dice.choice(("cut", "flip", "zero", "insert", "repeat", "word", "digits")):
            case "cut":
                del data[place:]
            case "flip" if place < len(data):
                data[place] ^= 1 << dice.randrange(8)
            case "zero":
                data[place : place + 40] = bytes(len(data[place : place + 40]))
            case "insert":
                data[place:place] = dice.randbytes(dice.randrange(1, 30))
            case "repeat":
                data[place:place] = data[place : place + dice.choice((3, 80, 5000))]
            case "word":
                data[place : place + 4] = dice.choice(
                    (
                        b"\xff\xff\xff\xff",
                        b"\xff\xff\xff\x7f",
                        b"nan,",
                        b"\n\n\n\n",
                        b'","",',
                        b"]]>",
                    )
                )
            case "digits":
                data[place:place] = b"9" * dice.randrange(1, 40)
    return bytes(data)


def changed(content: Any, dice: random.Random) -> Any:
    """Return a document with one value changed, removed, doubled or added.

    Parameters
    ----------
    content
        The document: tables, lists and values.
    dice
        The random numbers.
    """
    path = dice.choice(list(_paths(content)))
    return _changed(content, path, dice)


def _paths(content: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield before
    if isinstance(content, dict):
        items: Any = content.items()
    elif isinstance(content, list):
        # The first and the last item stand for a long list.
        items = [(n, content[n]) for n in {0, len(content) - 1}] if content else []
    else:
        return
    for key, value in items:
        yield from _paths(value, (*before, key))


def _changed(content: Any, path: tuple[Any, ...], dice: random.Random) -> Any:
    if path:
        copy = dict(content) if isinstance(content, dict) else list(content)
        copy[path[0]] = _changed(content[path[0]], path[1:], dice)
        return copy
    if isinstance(content, dict) and content:
        key = dice.choice(list(content))
        rest = {name: value for name, value in content.items() if name != key}
        kept = dict(content)
        return dice.choice((rest, kept | {dice.choice(("x", "path", "weights")): _odd(dice)}))
    if isinstance(content, list) and content:
        return dice.choice((content[1:], content + content, [*content, _odd(dice)], _odd(dice)))
    if isinstance(content, int | float) and not isinstance(content, bool):
        return dice.choice((-content, content + 1, content * 1e30, str(content), _odd(dice)))
    return _odd(dice)


def _odd(dice: random.Random) -> Any:
    return dice.choice(ODD)


@contextmanager
def no_hang(what: str) -> Iterator[None]:
    """Fail if the block takes longer than SECONDS.

    Parameters
    ----------
    what
        The case, for the message.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"a hang: {what}")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
