"""What commands print: notes, results, and the progress of long work.

On a terminal progress is a bar, elsewhere a line a minute.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from catalogproc.io.progress_bar import ProgressBar


class Voice:
    """How much is printed: everything, or with ``--quiet`` only results and errors.

    Attributes
    ----------
    quiet
        Whether ``--quiet`` is given.
    begun
        Whether the command has begun its work, which is when it first reports progress.
    """

    quiet = False
    begun = False


VOICE = Voice()
"""Of the command that this process runs."""


def note(line: str) -> None:
    """Print what is being done or where it was written; not with ``--quiet``.

    Parameters
    ----------
    line
        The text.
    """
    if not VOICE.quiet:
        print(line, flush=True)


class LogHandler(logging.Handler):
    """Prints what the program logs to the standard error, above a bar of progress."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        print(self.format(record), file=sys.stderr, flush=True)


def show_log() -> None:
    """Print what the package logs, with times: ``--verbose``."""
    handler = LogHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("catalogproc")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


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


def result(found: Printable, as_json: bool) -> None:
    """Print a result, as lines for people or as JSON for programs.

    Parameters
    ----------
    found
        The result.
    as_json
        Print JSON.
    """
    if as_json:
        say(json.dumps(found.to_dict(), indent=1))
    else:
        say_lines(found.lines())


def say_lines(lines: Sequence[str]) -> None:
    """Print the lines of a result; with ``--quiet`` the first alone, which is the result.

    Parameters
    ----------
    lines
        The lines.
    """
    for line in lines[:1] if VOICE.quiet else lines:
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
def screen(silent: bool = False) -> Iterator[Callable[[Sequence[str]], None]]:
    """Yield what shows lines in place of the ones before; elsewhere than on a terminal, the first
    of them where it has changed.

    Parameters
    ----------
    silent
        Show nothing.
    """
    if silent:
        yield lambda lines: None
        return
    if not sys.stdout.isatty():
        shown: list[str] = []
        yield lambda lines: _say_new(lines[0], shown)
        return
    from rich.live import Live
    from rich.text import Text

    with Live(console=console(), transient=True, auto_refresh=False) as live:
        yield lambda lines: live.update(Text("\n".join(lines)), refresh=True)


def _say_new(line: str, shown: list[str]) -> None:
    if shown[-1:] != [line]:
        shown.append(line)
        say(line)


@contextmanager
def progress(unit: str) -> Iterator[Progress]:
    """Yield a Progress, and remove its bar afterwards.

    Parameters
    ----------
    unit
        What is counted: stars, steps.
    """
    shown = Progress(unit, console(stderr=True))
    try:
        yield shown
    finally:
        shown.close()


class Progress(ProgressBar):
    """Shows the progress of long work, called as ``progress(done, total, note)``; not --quiet."""

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        VOICE.begun = True
        if not VOICE.quiet:
            super().__call__(done, total, note)

    def say(self, line: str) -> None:
        """Print a line above the bar.

        Parameters
        ----------
        line
            The text.
        """
        if VOICE.quiet:
            return
        if self._bar is None:
            print(line, flush=True)
        else:
            self._bar.console.print(line, highlight=False, markup=False)
