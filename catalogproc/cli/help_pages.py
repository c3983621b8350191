"""Help pages: options grouped by purpose, whole sentences, examples, as wide as the terminal.

Typer groups options only in its pages with frames. These are plain text: they can be piped, and
they are read by a screen reader.
"""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand, TyperGroup

WIDTH = 120
"""Widest page, in characters; a narrower terminal has narrower pages."""
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": WIDTH}
"""Settings of typer for all commands."""
GENERAL = "General options"
EVERYWHERE = (
    ("-q, --quiet", "Print only results and errors."),
    ("-v, --verbose", "Print also the log, with times."),
)
"""Options that main.py takes out of the words of any command."""
GROUPS = {
    "Input": (
        "--input --gaia-source --release --bridge --dust --data --from --to --spectra --xp "
        "--apogee --distmass --tmass --library --crosswalk --members --known --again --catalog "
        "--recipe --link --design --like --base-url --table --apogee-column --distmass-column "
        "--from-files"
    ),
    "Stars": (
        "--where --ids --select --healpix --all-sources --probability --cut --split --fraction "
        "--hold-out-seismic --stars --seed --teff --logg --m-h --mass --age --ebv --isochrone "
        "--distance --absolute"
    ),
    "Model and method": "--model --job --labels --draws --quick --figures",
    "Output": (
        "--output --format --columns --selection --overwrite --posterior --flux --plot --json "
        "--markdown --correlations --chunk-rows --basis --folder --name"
    ),
    "Machine": "--scheduler --workers --cpu-workers --device --processes --parallel --disk-budget",
    "Checks and resuming": "--strict --dry-run --show-adql --resume --watch --every",
}
"""Options by purpose; one of another purpose in some command says so as its ``rich_help_panel``."""
_PURPOSE = {option: group for group, options in GROUPS.items() for option in options.split()}
_PLACEHOLDERS = ((r"<int(?: range)?>", "N"), (r"<float(?: range)?>", "X"), (r"<([\w|]+)>", r"\1"))
"""What typer writes for a value, and what is written here."""


def purpose(param: Any) -> str:
    """Return the group of an option on the page of its command.

    Parameters
    ----------
    param
        The option, as typer has it.
    """
    named = next((_PURPOSE[name] for name in param.opts if name in _PURPOSE), GENERAL)
    return getattr(param, "rich_help_panel", None) or named


def fold(command: str, width: int) -> list[str]:
    """Return a command as lines that a shell reads as one, broken before options.

    Parameters
    ----------
    command
        The command, in one line.
    width
        Number of characters of a line.
    """
    lines = [""]
    for part in re.split(r" (?=--?\w)", command):
        if lines[-1] and len(f"{lines[-1]} {part} \\") > width:
            lines[-1] += " \\"
            lines.append(f"    {part}")
        else:
            lines[-1] = f"{lines[-1]} {part}".strip() if len(lines) == 1 else f"{lines[-1]} {part}"
    return lines


class HelpCommand(TyperCommand):
    """A command whose epilog is examples, one a line."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the arguments, the required options, and a word for the others."""
        required = [param for param in self.params if param.required]
        arguments = [param for param in required if param.param_type_name == "argument"]
        options = [param for param in required if param.param_type_name == "option"]
        words = [f"{param.opts[0]} {_record(param, ctx)[0].split()[-1]}" for param in options]
        return [*(_record(param, ctx)[0] for param in arguments), *words, "[OPTIONS]"]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, and the options by purpose."""
        _write_options(self, ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples as they are typed."""
        _write_examples(self.epilog, formatter)


class HelpGroup(TyperGroup):
    """Commands by purpose, each with the whole first sentence of its help."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, and then the options."""
        self.format_commands(ctx, formatter)
        _write_options(self, ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands by their ``rich_help_panel``."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            if not command.hidden:
                panel = command.rich_help_panel or "Commands"
                groups.setdefault(panel, []).append((name, _sentence(command.help or "")))
        column = max(len(name) for rows in groups.values() for name, _ in rows)
        for panel, rows in groups.items():
            with formatter.section(panel):
                formatter.write_dl([(f"{name:{column}}", text) for name, text in rows])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples as they are typed."""
        _write_examples(self.epilog, formatter)


def _sentence(text: str) -> str:
    """Return the first sentence of a text; "et al. (2026)" is inside one."""
    plain = " ".join(text.split())
    return re.split(r"(?<=\.) (?=[A-Z])", plain)[0]


def _write_options(command: Any, ctx: Any, formatter: Any) -> None:
    groups: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Arguments", *GROUPS)}
    general: list[tuple[str, str]] = [] if ctx.parent is None else list(EVERYWHERE)
    for param in command.get_params(ctx):
        if getattr(param, "hidden", False):
            continue
        row = _record(param, ctx)
        if param.param_type_name == "argument":
            groups["Arguments"].append(row)
        elif (group := purpose(param)) == GENERAL:
            general.append(row)
        else:
            groups.setdefault(group, []).append(row)
    groups[GENERAL] = general
    column = min(26, max((len(first) for rows in groups.values() for first, _ in rows), default=0))
    for name, rows in groups.items():
        if rows:
            with formatter.section(name):
                rows = [(f"{first:{column}}", text) for first, text in rows]
                formatter.write_dl(rows, col_max=column)


def _record(param: Any, ctx: Any) -> tuple[str, str]:
    """Return an option and its help, with placeholders and ranges of numbers in words."""
    option, text = param.get_help_record(ctx)
    if param.param_type_name == "argument":
        option = param.metavar or param.name.upper()
    for pattern, word in _PLACEHOLDERS:
        option = re.sub(pattern, word, option)
    text = re.sub(r"(?:; )?x>=[01](?:\.0)?(?=\])|x>=[01](?:\.0)?; ", "", text)
    text = re.sub(r"([\d.]+)<=x<=([\d.]+)", r"\1 to \2", text)
    return option, text.replace("[]", "").replace("  [", " [").rstrip()


def _write_examples(text: str | None, formatter: Any) -> None:
    if not text:
        return
    commands = text.splitlines()
    with formatter.section("Example" if len(commands) == 1 else "Examples"):
        for command in commands:
            for line in fold(command, formatter.width - 2):
                formatter.write(f"  {line}\n")
