"""The command line: the commands are assembled here, and errors printed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated

import typer

from catalogproc import __version__
from catalogproc.cli import bridge, catalog, data, demo, evaluation, fetch, run, spectra, training
from catalogproc.cli.console import VOICE, console, show_log
from catalogproc.cli.examples import epilog
from catalogproc.cli.help_pages import SETTINGS, HelpCommand, HelpGroup
from catalogproc.cli.usage import help_page, usage_error
from catalogproc.errors import CatalogprocError, InputError, refuse_windows

app = typer.Typer(
    name="catalogproc",
    help="Masses, ages and atmospheres of giant stars from Gaia XP spectra.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    cls=HelpGroup,
    context_settings=SETTINGS,
)

# Options that take all values up to the next option, as the shell expands them.
_MANY = ("--input", "--gaia-source", *bridge.MANY, *data.MANY, *training.MANY, *spectra.MANY)

_EVERYWHERE = {"--quiet": "--quiet", "-q": "--quiet", "--verbose": "--verbose", "-v": "--verbose"}
"""Options of all commands, which may stand anywhere."""
_INTERRUPTED = 130  # the exit code of typer after Ctrl-C

_VERBS: dict[str, tuple[Callable[..., None], ...]] = {
    "Make a catalog": (
        demo.demo, run.run, run.check, run.plan, catalog.status, catalog.verify,
    ),
    "Use a catalog": (
        catalog.export, catalog.report, catalog.explain, evaluation.diff,
        evaluation.crosscheck,
    ),
    "Get and describe data": (
        fetch.fetch, data.convert, data.describe, data.simulate, training.dust,
    ),
    "Use the model on any table": (
        evaluation.infer, spectra.generate, spectra.inpaint, spectra.embed,
    ),
    "Train and evaluate": (training.train, evaluation.evaluate, evaluation.calibrate),
}  # fmt: skip
for _panel, _commands in _VERBS.items():
    for _command in _commands:
        _examples = epilog(_command.__name__)
        app.command(cls=HelpCommand, epilog=_examples, rich_help_panel=_panel)(_command)
app.add_typer(training.dataset, name="dataset", rich_help_panel="Train and evaluate")
app.add_typer(data.release_app, name="release", rich_help_panel="Another Gaia release")
app.add_typer(bridge.bridge_app, name="bridge", rich_help_panel="Another Gaia release")


def main() -> None:
    """Run a command; print errors in the user's words; exit with 0, 1 or 2."""
    try:
        refuse_windows()
        words = _spread(sys.argv[1:])
        code = _program()(args=words, prog_name="catalogproc", standalone_mode=False)
    except CatalogprocError as error:
        sys.exit(_failed(error))
    except Exception as error:
        if page := help_page(error):
            print(page, file=sys.stderr)
            sys.exit(2)
        refused = usage_error(error)
        if refused is None:
            raise
        sys.exit(_failed(refused))
    if code == _INTERRUPTED:
        console(stderr=True).print("stopped: run the same command again to resume", style="yellow")
    sys.exit(code if isinstance(code, int) else 0)


@lru_cache(maxsize=1)
def _program() -> Callable[..., object]:
    """Return the program as typer makes it of the functions, once a process."""
    return typer.main.get_command(app)


def _failed(error: CatalogprocError) -> int:
    """Print an error and return its exit code: 2 where the command had not begun its work."""
    console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False)
    return 2 if isinstance(error, InputError) and not VOICE.begun else error.exit_code


def _spread(words: list[str]) -> list[str]:
    """Write ``--input a b`` as ``--input a --input b``, as a glob of the shell gives it, and move
    options of all commands to the start."""
    spread = list(dict.fromkeys(_EVERYWHERE[word] for word in words if word in _EVERYWHERE))
    words = [word for word in words if word not in _EVERYWHERE]
    option = ""
    for word in words:
        if word.startswith("-") and word != "-":
            option = word if word in _MANY else ""
            if not option:
                spread.append(word)
        elif option:
            spread += [option, word]
        else:
            spread.append(word)
    return spread


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"catalogproc {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="The version.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only results and errors.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print also the log, with times.")
    ] = False,
) -> None:
    """Masses, ages and atmospheres of giant stars from Gaia XP spectra."""
    VOICE.quiet = quiet
    if verbose:
        show_log()
