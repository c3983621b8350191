"""What the command line shows of long work: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Voice:
    """How much the command line says: all of it, or (``--quiet``) only results and errors."""

    quiet = False


VOICE = Voice()
"""The command line's own; set once, before a verb begins."""

QUIET_SECONDS = 10.0
"""Between two lines where there is no terminal."""


def note(line: str) -> None:
    """What goes on, and where it was written: not said with ``--quiet``."""
    if not VOICE.quiet:
        print(line, flush=True)


def console(stderr: bool = False) -> Any:
    """rich's console; piped, it does not fold: it is for another program to read."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr, soft_wrap=stderr, width=None if stderr or stream.isatty() else 200
    )


@contextmanager
def progress(unit: str) -> Iterator[Progress]:
    """A Progress that tidies up after itself. ``unit`` is what is counted: stars, steps."""
    shown = Progress(unit)
    try:
        yield shown
    finally:
        shown.close()


class Progress:
    """What long work reports to: ``progress(done, total, note)``; it appears when first called."""

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
        """A line above the bar."""
        if VOICE.quiet:
            return
        if self._bar is None:
            print(line, flush=True)
        else:
            self._bar.console.print(line, highlight=False, markup=False)

    def close(self) -> None:
        """Take the bar away."""
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
