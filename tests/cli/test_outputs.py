"""An output that cannot be written is refused before any work, in words and with exit code 2."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from catalogproc.cli import main as command_line
from catalogproc.errors import Refusal
from catalogproc.io.output import check_output_file, check_output_folder, existing_parent

FOLDER_VERBS = {
    "run": ["run", "--input", "no.parquet"],
    "check": ["check", "--input", "no.parquet"],
    "plan": ["plan", "--input", "no.parquet"],
    "convert": ["convert", "no.parquet"],
    "simulate": ["simulate", "--stars", "10", "--seed", "1"],
    "train": ["train"],
    "calibrate": ["calibrate"],
    "evaluate": ["evaluate"],
    "crosscheck": ["crosscheck", "no"],
    "dataset apogee-xp": ["dataset", "apogee-xp", "--library", "no.fits.gz"],
    "dataset lb24": ["dataset", "lb24", "no.h5", "no.h5", "--distmass", "no.fits"],
    "dataset build": ["dataset", "build", "--apogee", "no.fits", "--distmass", "no.fits",
                      "--gaia-source", "no.parquet", "--xp", "no.parquet"],
    "export": ["export", "no", "--format", "hats"],
}  # fmt: skip
FILE_VERBS = {
    "infer": ["infer", "--input", "no.csv", "--labels", "mass"],
    "inpaint": ["inpaint", "--input", "no.parquet"],
    "embed": ["embed", "--input", "no.parquet"],
    "generate": ["generate", "--teff", "4800"],
    "bridge fit": ["bridge", "fit", "--from", "no.parquet", "--to", "no.parquet"],
    "release add": ["release", "add", "--design", "no.xml"],
    "export": ["export", "no", "--format", "fits"],
}


def fails(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Run the command line in this process, and return what it says of its failure."""
    monkeypatch.setattr(sys, "argv", ["catalogproc", *words])
    with pytest.raises(SystemExit) as caught:
        command_line.main()
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("verb", FOLDER_VERBS)
def test_a_file_in_place_of_the_output_folder_is_refused(
    verb: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "mine"
    output.write_text("mine")
    said = fails([*FOLDER_VERBS[verb], "--output", str(output)], monkeypatch, capsys)
    assert "the output is not a folder" in said
    assert str(output) in said
    assert output.read_text() == "mine"


@pytest.mark.parametrize("verb", FILE_VERBS)
def test_a_folder_in_place_of_the_output_file_is_refused(
    verb: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = fails([*FILE_VERBS[verb], "--output", str(tmp_path)], monkeypatch, capsys)
    assert "the output is a folder" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["simulate", "train", "calibrate", "evaluate", "convert"])
def test_a_folder_that_nobody_can_make_is_refused_in_words(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Root has every right in /proc, and can make nothing there."""
    if not os.path.isdir("/proc/self"):
        pytest.skip("this system has no /proc")
    said = fails([*FOLDER_VERBS[verb], "--output", "/proc/x"], monkeypatch, capsys)
    assert said.startswith("error: the output cannot be written")
    assert "where: /proc" in said
    assert "Traceback" not in said


def test_the_dust_map_needs_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("mine")
    said = fails(["dust", "--folder", str(tmp_path / "mine")], monkeypatch, capsys)
    assert "the folder of dust maps cannot be written" in said


def test_the_check_leaves_nothing_and_makes_nothing(tmp_path: Path) -> None:
    check_output_folder(tmp_path / "a" / "b")
    check_output_file(tmp_path / "a" / "b.csv")
    check_output_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert existing_parent(tmp_path / "a" / "b") == tmp_path
    assert existing_parent(Path("a")) == Path.cwd()


def test_a_link_to_nothing_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(Refusal, match="not a folder"):
        check_output_folder(tmp_path / "link")
