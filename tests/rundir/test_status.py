"""How a run stands is told from its receipts, whatever has happened to the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from support.catalogs import STARTED, finished_run
from typer.testing import CliRunner

import catalogproc
from catalogproc.cli.main import app
from catalogproc.errors import ResumeError
from catalogproc.io.processes import this_process
from catalogproc.rundir.receipts import receipt_files
from catalogproc.rundir.status import has_stopped, status

NOW = STARTED + timedelta(seconds=65)


def test_a_finished_run(tmp_path: Path) -> None:
    run = finished_run(tmp_path)  # 4 chunks of 50 + 3 rows, begun a second after each other
    found = status(tmp_path, NOW)
    assert (found.run_id, found.chunks, found.rows, found.rows_read) == (run.run_id, 4, 212, 212)
    assert found.rows_read == found.rows_written + found.rows_rejected
    assert found.finished
    assert found.pace == pytest.approx(212 / 5)
    assert found.idle == pytest.approx(60)
    words = "\n".join(found.lines())
    assert "212 of 212 stars read, 100%, in 4 chunks" in words
    assert "every row of the inputs has been read" in words
    assert "time: model 75%, read 25%" in words


def test_a_run_in_the_middle_says_what_is_left(tmp_path: Path) -> None:
    finished_run(tmp_path)
    for name in ("summary.json", "provenance.json"):
        (tmp_path / name).unlink()  # a run that goes on has none
    first, second, *_ = receipt_files(tmp_path)
    first.unlink()
    second.write_text("{")
    found = status(tmp_path, NOW)
    assert (found.chunks, found.rows_read, found.unreadable) == (2, 106, 1)
    assert not found.finished
    assert found.seconds_left == pytest.approx(106 / found.pace)
    words = "\n".join(found.lines())
    assert "stars per second" in words
    assert " left" in words
    assert "1 receipt cannot be read" in words


def test_a_clock_that_was_set_back_promises_nothing(tmp_path: Path) -> None:
    finished_run(tmp_path)
    for path in receipt_files(tmp_path):
        content = json.loads(path.read_text())
        content["started"], content["finished"] = content["finished"], content["started"]
        path.write_text(json.dumps(content))
    found = status(tmp_path, STARTED - timedelta(days=1))
    assert found.rows_read == 212
    assert found.pace >= 0
    assert found.idle == 0


def test_no_run_here(tmp_path: Path) -> None:
    with pytest.raises(ResumeError):
        status(tmp_path)


def test_the_verb(tmp_path: Path) -> None:
    finished_run(tmp_path)
    done = CliRunner().invoke(app, ["status", str(tmp_path), "--json"])
    assert json.loads(done.output)["finished"] is True
    done = CliRunner().invoke(app, ["status", str(tmp_path)])
    assert "1 worker on cpu, 4 chunks\n" in done.output


def unfinished(folder: Path, last_event: str) -> list[Path]:
    """Make a run of four chunks, two of which are not done yet; return their receipts, set aside.

    The lock names this process, as that of a run that works.
    """
    finished_run(folder)
    aside = []
    for path in receipt_files(folder)[:2]:
        aside.append(path.rename(folder / f"{path.name}.aside"))
    (folder / "log.jsonl").write_text(json.dumps({"event": last_event}) + "\n")
    (folder / ".lock").write_text(json.dumps(this_process()))
    return aside


def test_watch_shows_the_progress_until_the_run_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside = unfinished(tmp_path, "chunk done")

    def a_chunk_is_done(seconds: float) -> None:
        path = aside.pop()
        path.rename(tmp_path / "receipts" / path.name.removesuffix(".aside"))

    monkeypatch.setattr("catalogproc.cli.catalog.time.sleep", a_chunk_is_done)
    done = CliRunner().invoke(app, ["status", str(tmp_path), "--watch"])
    heads = [line for line in done.output.splitlines() if "stars read" in line]
    assert [line.split(": ")[1].split(" of")[0] for line in heads] == ["106", "159", "212"]
    assert done.exit_code == 0
    assert "every row of the inputs has been read" in done.output


@pytest.mark.parametrize("event", ["stopped short", "ended", "finished"])
def test_watch_ends_with_a_run_that_ended_short(event: str, tmp_path: Path) -> None:
    unfinished(tmp_path, event)
    assert has_stopped(tmp_path)
    done = CliRunner().invoke(app, ["status", str(tmp_path), "--watch", "--every", "0.1"])
    assert done.exit_code == 1
    assert "106 of 212 stars read" in done.output
    assert "the same command as before resumes it" in done.output


def test_a_run_whose_process_is_gone_has_stopped(tmp_path: Path) -> None:
    unfinished(tmp_path, "chunk done")
    assert not has_stopped(tmp_path)
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True).stdout  # fmt: skip
    (tmp_path / ".lock").write_text(json.dumps(this_process() | {"pid": int(gone)}))
    assert has_stopped(tmp_path)


def test_ctrl_c_ends_watching_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished(tmp_path, "chunk done")

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("catalogproc.cli.catalog.time.sleep", interrupt)
    done = CliRunner().invoke(app, ["status", str(tmp_path), "--watch"])
    assert done.exit_code == 0
    assert "106 of 212 stars read" in done.output
    assert "resumes" not in done.output


@pytest.mark.parametrize("kind", ["no such folder", "a file", "an empty folder", "other files"])
def test_what_is_not_the_folder_of_a_run_is_told(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "nope"
    if kind == "a file":
        folder.write_text("")
    elif kind != "no such folder":
        folder.mkdir()
        if kind == "other files":
            (folder / "notes.txt").write_text("")
    with pytest.raises(ResumeError, match=f"found: {kind}"):
        catalogproc.open_catalog(folder)
