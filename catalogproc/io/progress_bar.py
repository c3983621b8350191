"""Progress of long work, as a bar or as lines.

In a terminal it is a bar, in a notebook one line that changes; elsewhere a line a minute, on the
command line printed (logs of batch systems), in Python logged.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

Progress = Callable[[int, int | None, str], None]
"""Called with what is done, of how much (None where that is unknown), and a note."""
LOG_SECONDS = 60.0
"""Between two lines where there is neither a terminal nor a notebook."""
NOTEBOOK_SECONDS = 0.5
"""Between two changes of the line in a notebook."""
RATE_SECONDS = 60.0
"""The rate is that of the last so many seconds."""
PATIENCE = 0.5
"""Seconds of work before a bar appears in Python, where a short call shows none."""

_LOG = logging.getLogger("catalogproc.progress")


class Rate:
    """How much is done a second, of the last minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, now: float, done: int) -> None:
        """Note how much is done at a time.

        Parameters
        ----------
        now, done
            The time in seconds, and what is done.
        """
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()  # a chunk begins anew
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] > RATE_SECONDS:
            self._seen.popleft()

    @property
    def value(self) -> float | None:
        """Done a second; None before there is a second to measure, or where nothing was done."""
        if not self._seen:
            return None
        (start, before), (end, after) = self._seen[0], self._seen[-1]
        return (after - before) / (end - start) if end - start >= 1 and after > before else None


def progress_line(unit: str, done: int, total: int | None, rate: float | None, note: str) -> str:
    """Return the progress in words.

    Parameters
    ----------
    unit
        What is counted: stars, steps.
    done, total
        How much is done, and of how much; None where unknown.
    rate
        Done a second, None where unknown.
    note
        What else is said.
    """
    of = f" of {total:,}" if total else ""
    words = [f"{done:,}{of} {unit}"]
    if rate:
        words.append(f"{rate:,.0f}/s" if rate >= 1 else f"{60 * rate:,.1f} a minute")
        if total and total > done:
            words.append(f"{_duration((total - done) / rate)} left")
    return ", ".join([*words, note] if note else words)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


class ProgressBar:
    """Shows the progress of long work, called as ``progress(done, total, note)``.

    Parameters
    ----------
    unit
        What is counted: stars, steps.
    console
        A console of rich for errors; None makes one.
    printed
        Whether the line a minute is printed where there is neither a terminal nor a notebook,
        and not logged.
    """

    def __init__(self, unit: str, console: Any = None, printed: bool = True) -> None:
        from rich.console import Console

        self._unit, self._printed = unit, printed
        self._patience = 0.0 if printed else PATIENCE
        self._console = console or Console(stderr=True, soft_wrap=True)
        self._bar: Any = None
        self._cell: Any = None
        self._rate = Rate()
        self._begun = self._last = time.monotonic()

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        now = time.monotonic()
        self._rate.add(now, done)
        if now - self._begun < self._patience:
            return
        if _in_notebook():
            if self._cell is None or now - self._last >= NOTEBOOK_SECONDS:
                self._last = now
                self._show_cell(progress_line(self._unit, done, total, self._rate.value, note))
        elif self._console.is_terminal:
            self._show_bar(done, total, note)
        elif now - self._last >= LOG_SECONDS:
            self._last = now
            line = progress_line(self._unit, done, total, self._rate.value, note)
            if self._printed:
                self._console.print(line, highlight=False, markup=False)
            else:
                _LOG.info("%s", line)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show_cell(self, line: str) -> None:
        notebook: Any = import_module("IPython.display")

        class Line(notebook.TextDisplayObject):
            def __repr__(self) -> str:
                return str(self.data)

        if self._cell is None:
            self._cell = notebook.display(Line(line), display_id=True)
        else:
            self._cell.update(Line(line))

    def _show_bar(self, done: int, total: int | None, note: str) -> None:
        if self._bar is None:
            self._bar = self._make()
            self._task = self._bar.add_task("", total=total, words="")
            self._bar.start()
        words = progress_line(self._unit, done, total, self._rate.value, note)
        self._bar.update(self._task, completed=done, total=total, words=words)

    def _make(self) -> Any:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        return Progress(
            SpinnerColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[words]}"),
            console=self._console,
            transient=True,
        )


def _in_notebook() -> bool:
    """Return whether the caller is a notebook: IPython with a kernel, not in a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


@contextmanager
def shown(progress: Progress | bool, unit: str) -> Iterator[Progress | None]:
    """Yield what is called with the progress; a bar is removed at the end.

    Parameters
    ----------
    progress
        A function that is called as it is; True makes a bar, which logs where there is neither
        a terminal nor a notebook; False nothing.
    unit
        What is counted.
    """
    if not isinstance(progress, bool):
        yield progress
        return
    bar = ProgressBar(unit, printed=False) if progress else None
    try:
        yield bar
    finally:
        if bar is not None:
            bar.close()
