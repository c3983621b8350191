"""What commands print: notes, results, and the progress of long work.

On a terminal progress is a bar, elsewhere a line now and then.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Voice:
    """How much is printed: everything, or with ``--quiet`` only results and errors."""

    quiet = False


VOICE = Voice()
"""Set once, before a command starts."""

QUIET_SECONDS = 10.0
"""Between two lines of progress where there is no terminal."""


def note(line: str) -> None:
    """Print what is being done or where it was written; not with ``--quiet``.

    Parameters
    ----------
    line
        The text.
    """
    if not VOICE.quiet:
        print(line, flush=True)


class Printable(Protocol):
    """A result that can be printed for people and for programs."""

    def lines(self) -> list[str]: ...

    def to_dict(self) -> dict[str, Any]: ...


def say(line: str) -> None:
    """Print a line of a result, also with ``--quiet``.

    Parameters
    ----------
    line
        The text.
    """
    print(line, flush=True)


def result(found: Printable, as_json: bool, quiet: bool = False) -> None:
    """Print a result, as lines for people or as JSON for programs.

    Parameters
    ----------
    found
        The result.
    as_json
        Print JSON.
    quiet
        Print no lines for people.
    """
    if as_json:
        say(json.dumps(found.to_dict(), indent=1))
    elif not quiet:
        for line in found.lines():
            say(line)


def console(stderr: bool = False) -> Any:
    """Return a console of rich; piped, it does not wrap lines, for other programs read them.

    Parameters
    ----------
    stderr
        Print errors and not results.
    """
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr, soft_wrap=stderr, width=None if stderr or stream.isatty() else 200
    )


@contextmanager
def progress(unit: str) -> Iterator[Progress]:
    """Yield a Progress, and remove its bar afterwards.

    Parameters
    ----------
    unit
        What is counted: stars, steps.
    """
    shown = Progress(unit)
    try:
        yield shown
    finally:
        shown.close()


class Progress:
    """Shows the progress of long work, called as ``progress(done, total, note)``."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._console = console(stderr=True)
        self._bar: Any = None
        self._start = self._last = time.monotonic()

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        if VOICE.quiet:
            return
        now = time.monotonic()
        if self._console.is_terminal:
            self._show(done, total, now, note)
        elif now - self._last >= QUIET_SECONDS:
            self._last = now
            of = f" of {total:,}" if total else ""
            rate = done / (now - self._start)
            line = f"{done:,}{of} {self._unit}, {rate:,.0f}/s, {note}".rstrip(", ")
            self._console.print(line, highlight=False, markup=False)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if VOICE.quiet:
            return
        if self._bar is None:
            print(line, flush=True)
        else:
            self._bar.console.print(line, highlight=False, markup=False)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, done: int, total: int | None, now: float, note: str) -> None:
        if self._bar is None:
            self._start = now
            self._bar = self._make()
            self._task = self._bar.add_task("", total=total, counted="", rate="", note="")
            self._bar.start()
        rate = done / max(now - self._start, 1e-9)
        self._bar.update(
            self._task,
            completed=done,
            total=total,
            counted=f"{done:,}" + (f" of {total:,}" if total else ""),
            rate=f"{rate:,.0f}/s" if done else "",
            note=note,
        )

    def _make(self) -> Any:
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        return Bar(
            SpinnerColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[counted]} " + self._unit),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("[dim]{task.fields[note]}"),
            console=self._console,
            transient=True,
        )
