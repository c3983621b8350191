"""The first example on the help page of each command runs, and says nothing alarming."""

from __future__ import annotations

import shlex
import sys
from glob import glob
from pathlib import Path
from typing import Any

import pytest
import typer
from support.catalogs import finished_run
from support.paths import ROOT

from catalogproc.cli.examples import EXAMPLES
from catalogproc.cli.main import _spread, app, main

QUICK = ("verify", "status", "export", "describe", "convert", "simulate", "generate", "plan")
LONG = ("demo", "run", "check", "report", "explain", "infer", "embed", "inpaint", "calibrate")
ELSEWHERE = {
    "diff": "two runs", "crosscheck": "a published catalog", "fetch": "the archive",
    "dust": "a download", "train": "half an hour", "evaluate": "half an hour",
    "dataset apogee-xp": "a download", "dataset example-giants": "a download",
    "dataset lb24": "a download", "dataset build": "surveys", "dataset carry": "DR4",
    "release add": "matrices", "bridge fit": "DR4", "bridge check": "DR4",
}  # fmt: skip
"""Commands whose example is not run, as it needs this; tests of their own run them."""
PROGRAM: Any = typer.main.get_command(app)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the examples of a checkout."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(command: str) -> list[str]:
    """Return the words of a command as a shell gives them, with its globs expanded."""
    return [
        name
        for word in shlex.split(command)[1:]
        for name in (sorted(glob(word)) if "*" in word and glob(word) else [word])
    ]


def says(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> str:
    monkeypatch.setattr(sys, "argv", ["catalogproc", *words(command)])
    with pytest.raises(SystemExit) as caught:
        main()
    said = capsys.readouterr()
    assert caught.value.code == 0, said.err
    assert said.out
    assert "warning" not in (said.out + said.err).lower()
    return str(said.out)


def test_every_command_is_run_or_says_why_not() -> None:
    assert sorted((*QUICK, *LONG, *ELSEWHERE)) == sorted(EXAMPLES)


@pytest.mark.parametrize("verb", EXAMPLES)
def test_every_example_is_a_command_line(verb: str, here: Path) -> None:
    """All options exist; nothing is run."""
    for command in EXAMPLES[verb]:
        rest, program = _spread(words(command)), PROGRAM
        for name in verb.split():
            assert rest.pop(0) == name
            program = program.commands[name]
        assert not program.make_context(verb, rest, resilient_parsing=True).args


@pytest.mark.parametrize("verb", QUICK)
def test_the_first_example_of_a_help_page_runs(
    verb: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    if "output/demo" in EXAMPLES[verb][0]:
        finished_run(here / "output" / "demo", files=1, chunks=1)
    text = says(EXAMPLES[verb][0], monkeypatch, capsys)
    if verb == "generate":
        assert text.startswith("1 spectrum written to star.ecsv, flux.ecsv, star.png\n")
        assert "sigma" not in text  # its labels agree with each other
        assert {"star.ecsv", "flux.ecsv", "star.png"} <= {path.name for path in here.iterdir()}


@pytest.mark.slow
def test_the_longer_first_examples_run_one_after_another(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for verb in ("simulate", *LONG):
        says(EXAMPLES[verb][0], monkeypatch, capsys)
