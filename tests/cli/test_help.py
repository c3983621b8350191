"""Help pages: grouped by purpose, nothing cut off, as wide as the terminal; -h, -q, -v."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest
import typer

from catalogproc.cli import help_pages
from catalogproc.cli.examples import EXAMPLES
from catalogproc.cli.main import _spread, app, main


def commands() -> dict[str, Any]:
    """Every command by its words, groups too; the whole program is "" """
    found: dict[str, Any] = {}

    def walk(command: Any, words: str) -> None:
        found[words] = command
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, f"{words} {name}".strip())

    walk(typer.main.get_command(app), "")
    return found


COMMANDS = commands()
VERBS = {words: command for words, command in COMMANDS.items() if not hasattr(command, "commands")}


def page(words: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    COMMANDS[""](args=[*words.split(), "-h"], prog_name="catalogproc", standalone_mode=False)
    return str(capsys.readouterr().out)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("words", COMMANDS)
def test_a_page_has_everything_and_fits(
    words: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    text = page(words, width, monkeypatch, capsys)
    assert max(map(len, text.splitlines())) <= width
    plain = "".join(text.split())
    for param in COMMANDS[words].params:
        if param.param_type_name == "option" and not param.hidden:
            assert param.opts[0] in plain, param.opts
            assert "".join((param.help or "").split()) in plain, param.opts
            assert param.help or param.opts[0] == "--output", param.opts
    for name, inner in getattr(COMMANDS[words], "commands", {}).items():
        assert f"\n  {name} " in text
        assert "".join(help_pages._sentence(inner.help).split()) in plain
    assert "<" not in text


def test_a_wide_terminal_has_wide_pages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    widest = [
        max(map(len, page("run", width, monkeypatch, capsys).splitlines())) for width in (80, 120)
    ]
    assert widest[0] <= 80 < widest[1]


def test_every_option_has_a_purpose() -> None:
    known = [option for options in help_pages.GROUPS.values() for option in options.split()]
    assert len(known) == len(set(known))
    used = set()
    for words, command in VERBS.items():
        for param in command.params:
            if param.param_type_name == "option":
                assert help_pages.purpose(param) in help_pages.GROUPS, (words, param.opts)
                used.update(param.opts)
    assert not set(known) - used


def test_options_are_grouped_and_required_ones_stand_in_the_first_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    text = page("run", 80, monkeypatch, capsys)
    assert text.startswith("Usage: catalogproc run --input FILE... --output DIR [OPTIONS]\n")
    titles = [line[:-1] for line in text.splitlines() if line.endswith(":") and line[0] != " "]
    assert titles == [
        "Input", "Model and method", "Output", "Machine", "Checks and resuming",
        "General options", "Examples",
    ]  # fmt: skip
    machine = text.partition("Machine:")[2].partition("\n\n")[0]
    assert "--workers N" in machine
    assert "--scheduler ADDRESS" in machine


def test_every_verb_has_an_example() -> None:
    assert set(EXAMPLES) == set(VERBS)
    for words, examples in EXAMPLES.items():
        assert examples
        for example in examples:
            assert example.startswith(f"catalogproc {words}")


def test_a_folded_example_is_the_same_command() -> None:
    command = "catalogproc run --input 'a b.csv' --job demo --output output/demo --workers 4"
    lines = help_pages.fold(command, 40)
    assert all(len(line) <= 40 for line in lines)
    assert len(lines) > 1
    assert "".join(line.removesuffix("\\") for line in lines).split() == command.split()
    assert help_pages.fold(command, 200) == [command]


def test_options_of_all_commands_stand_anywhere() -> None:
    assert _spread(["run", "-v", "--input", "a", "--quiet", "b"]) == [
        "--verbose", "--quiet", "run", "--input", "a", "--input", "b",
    ]  # fmt: skip


@pytest.mark.parametrize("verbose", [False, True])
def test_the_log_is_printed_where_it_is_asked_for(
    verbose: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    logger = logging.getLogger("catalogproc")
    monkeypatch.setattr(logger, "handlers", list(logger.handlers))
    monkeypatch.setattr(logger, "level", logger.level)
    words = ["describe", "tiny", *(["-v"] if verbose else [])]
    monkeypatch.setattr(sys, "argv", ["catalogproc", *words])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr()
    assert "model tiny" not in said.out.partition("\n")[0]
    assert ("catalogproc.model: model tiny, " in said.err) == verbose
    assert said.err == "" or verbose
