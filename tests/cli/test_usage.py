"""A word of the command line that is wrong: exit code 2, and the one that was probably meant."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer

from catalogproc.cli.console import VOICE
from catalogproc.cli.main import app, main


def refused(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> str:
    monkeypatch.setattr(sys, "argv", ["catalogproc", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    out, said = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize(
    ("words", "message", "advice"),
    [
        ("run --ouput x", "no such option\n  found: --ouput", "did you mean --output?"),
        ("run --gaia-souce a b --output x", "found: --gaia-souce", "did you mean --gaia-source?"),
        ("run --inptu a b c", "found: --inptu", "did you mean --input?"),
        ("run --zzzzzz", "found: --zzzzzz", "catalogproc run --help lists them"),
        ("exprot x", "no such command\n  found: exprot", "did you mean export?"),
        ("dataset bulid", "where: catalogproc dataset", "did you mean build?"),
        ("zzzzzz", "found: zzzzzz", "catalogproc --help lists them"),
        ("export x --format ftis", "'ftis' is not one of 'fits'", "did you mean fits?"),
        ("run --output x", "Missing option '--input'", "run --help shows how it is used"),
        ("run --input a --output x --workers two", "'--workers'", "--help shows"),
        ("explain", "Missing argument 'DIR'", "explain --help shows"),
    ],
)
def test_what_was_meant_is_said(
    words: str, message: str, advice: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    said = refused(words.split(), monkeypatch, capsys)
    assert said.startswith("error: ")
    assert message in said
    assert f"what to do: {advice}" in said or advice in said


@pytest.mark.parametrize(
    "words",
    [
        "infer --input absent.csv --labels mass --output x.csv",
        "convert absent.csv --output x",
        "describe {here}/picture.png",
        "convert {here}/picture.png --output x",
        "infer --input {here}/picture.png --labels mass --output x.csv",
        "infer --input {here}/labels.csv --labels masss --output x.csv",
        "evaluate --figures al --output x",
        "evaluate --model giant --output x",
        "generate --known tef=4800 --plot x.png",
        "plan --input absent.csv --output x --job demmo",
        "bridge check absent.toml --from absent.csv --to absent.csv",
        "export {here} --output x.fits",
        "status {here}",
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    (tmp_path / "labels.csv").write_text("teff\n4800\n")
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(VOICE, "begun", False)
    said = refused(words.format(here=tmp_path).split(), monkeypatch, capsys)
    assert said.startswith("error: ")
    assert sorted(tmp_path.iterdir()) == before
    for wrong, meant in (
        ("masss", "mass"), ("figures al ", "all"), ("giant ", "giants"), ("tef=", "teff"),
        ("demmo", "demo"),
    ):  # fmt: skip
        if wrong in words:
            assert f"did you mean {meant}?" in said


def test_every_option_and_every_command_with_two_letters_exchanged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The word itself is suggested, unless the exchange makes another word of it."""
    group = typer.main.get_command(app)
    verbs = dict(group.commands)  # type: ignore[attr-defined]
    for name, verb in verbs.items():
        wrong = name[:1] + name[2] + name[1] + name[3:]
        if wrong not in verbs:
            assert f"did you mean {name}?" in refused([wrong], monkeypatch, capsys)
        options = [o for param in verb.params for o in param.opts if o.startswith("--")]
        for option in options:
            wrong = f"{option[:-2]}{option[-1]}{option[-2]}"
            if wrong not in options and len(option) > 5:
                said = refused([name, wrong], monkeypatch, capsys)
                assert f"did you mean {option}?" in said, (name, option, said)


@pytest.mark.parametrize("words", [[], ["dataset"]])
def test_without_arguments_the_help_page_is_shown(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert "Usage: catalogproc" in refused(words, monkeypatch, capsys)


@pytest.mark.parametrize("words", [["--version"], ["run", "--help"], ["describe", "flags"]])
def test_what_ends_well_exits_with_0(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["catalogproc", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
