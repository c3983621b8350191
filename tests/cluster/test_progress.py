"""Progress moves by batches, at a rate that is true, in a terminal, a notebook and a log."""

from __future__ import annotations

import io
import sys
import types
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from support.runs import Kit
from support.xp_files import real

from catalogproc.cluster.plan import make_plan
from catalogproc.cluster.progress import ROWS_DONE, rows_in_flight
from catalogproc.cluster.run import run
from catalogproc.io import progress_bar as module
from catalogproc.io.progress_bar import ProgressBar, Rate, progress_line


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)


def test_a_rate_is_never_that_of_an_instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first call that has all stars already is no rate of terahertz."""
    rate = Rate()
    rate.add(10.0, 0)
    rate.add(10.0 + 1e-9, 4096)
    assert rate.value is None
    rate.add(12.0, 4096)
    assert rate.value == 2048
    rate.add(14.0, 100)  # a chunk begins anew
    assert rate.value is None
    for second in range(200):
        rate.add(20.0 + second, 100 + 50 * second)
    assert rate.value == pytest.approx(50)


def test_the_line_says_what_is_known() -> None:
    assert progress_line("stars", 0, None, None, "") == "0 stars"
    line = progress_line("stars", 1500, 6000, 250.0, "chunk 1 of 3, 2 workers")
    assert line == "1,500 of 6,000 stars, 250/s, 0:00:18 left, chunk 1 of 3, 2 workers"
    assert progress_line("stars", 3, 10, 0.05, "") == "3 of 10 stars, 3.0 a minute, 0:02:20 left"
    assert progress_line("stars", 10, 10, 5.0, "") == "10 of 10 stars, 5/s"


def test_a_log_has_a_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, text = Clock(monkeypatch), io.StringIO()
    bar = ProgressBar("stars", Console(file=text, width=200))
    for second in range(600):
        clock.now += 1
        bar(100 * second, 100_000, "chunk 0 of 1")
    bar.close()
    lines = text.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0] == "5,900 of 100,000 stars, 100/s, 0:15:41 left, chunk 0 of 1"


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, text = Clock(monkeypatch), io.StringIO()
    console = Console(file=text, width=120, force_terminal=True)
    bar = ProgressBar("stars", console)
    for done in (0, 500, 1000):
        bar(done, 2000, "chunk 0 of 1")
        clock.now += 5
        bar._bar.refresh()
    bar.close()
    assert "1,000 of 2,000 stars, 100/s" in text.getvalue()


def test_a_notebook_has_a_line_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, shown = Clock(monkeypatch), []

    class Handle:
        def update(self, line: Any) -> None:
            shown.append(repr(line))

    def display(line: Any, display_id: bool) -> Handle:
        shown.append(repr(line))
        return Handle()

    class TextDisplayObject:
        def __init__(self, data: str) -> None:
            self.data = data

    ipython, inner = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=1)  # type: ignore[attr-defined]
    inner.display, inner.TextDisplayObject = display, TextDisplayObject  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", inner)
    bar = ProgressBar("stars")
    for step in range(20):
        bar(step * 100, 2000, "")
        clock.now += 0.25
    bar.close()
    assert shown[0] == "0 of 2,000 stars"
    assert shown[-1].startswith("1,800 of 2,000 stars, 400/s")
    assert len(shown) == 10


def test_rows_of_chunks_come_from_the_workers() -> None:
    workers = {
        "tcp://a": {"metrics": {ROWS_DONE: {"one": 100}}},
        "tcp://b": {"metrics": {ROWS_DONE: {"two": 50, "one": 20}}},
        "tcp://c": {"metrics": {}},
        "tcp://d": {},
    }
    assert rows_in_flight(workers) == {"one": 100, "two": 50}


@pytest.mark.slow
def test_stars_move_before_the_first_chunk_is_done(kit: Kit, tmp_path: Path) -> None:
    """One chunk of ten batches: its stars are counted by batches, and add up to all of them."""
    table = pa.concat_tables([real()] * 14).slice(0, 20_000)
    table = table.set_column(0, "source_id", pa.array(range(1, 20_001), pa.int64()))
    pq.write_table(table, tmp_path / "xp.parquet")
    (tmp_path / "job.toml").write_text(
        "kind = 'run'\ndescription = 'one chunk'\nchunk_rows = 50000\npropagation = 'none'\n"
    )
    told: list[tuple[int, int | None, str]] = []
    spec = kit.spec(
        tmp_path / "out", input=tmp_path / "xp.parquet", gaia_source=(), job=tmp_path / "job.toml"
    )
    result = run(make_plan(spec), progress=lambda *step: told.append(step))
    assert result.exit_code == 0
    before = {rows for rows, _, note in told if note.startswith("chunk 0 of 1")}
    assert {rows for rows in before if 0 < rows < 20_000}
    assert all(rows % 2048 == 0 or rows == 20_000 for rows in before)
    assert [rows for rows, _, _ in told] == sorted(rows for rows, _, _ in told)
    assert told[-1][:2] == (20_000, 20_000)
