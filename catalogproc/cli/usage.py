"""Errors of the command line itself, in the form of all others: wrong options, verbs, values."""

from __future__ import annotations

import re
from typing import Any

from catalogproc.errors import JobError, did_you_mean

_CHOICE = re.compile(r"'(?P<found>[^']*)' is not one of (?P<known>'.*')")
_NOISE = "Value error, "


def help_page(error: Exception) -> str | None:
    """Return the help page that typer shows where a command needs arguments and has none.

    Parameters
    ----------
    error
        What the command raised.
    """
    if type(error).__name__ != "NoArgsIsHelpError" or not hasattr(error, "format_message"):
        return None
    return str(error.format_message())


def usage_error(error: Exception) -> JobError | None:
    """Return an error for a command line that typer refuses; None for any other exception.

    Parameters
    ----------
    error
        What the command raised. Typer brings its own copy of click, so the classes of its errors
        are known by what they have: ``format_message``, ``ctx``.
    """
    if not hasattr(error, "format_message"):
        return None
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "catalogproc"
    listed = f"{command} --help lists them"
    option = getattr(error, "option_name", None)
    if option is not None and hasattr(error, "possibilities"):
        return JobError(
            "no such option", found=option, where=command,
            advice=did_you_mean(option, _options(context)) or listed,
        )  # fmt: skip
    text = str(error.format_message()).strip()
    if verb := re.match(r"No such command '(.*?)'", text):
        return JobError(
            "no such command", found=verb[1], where=command,
            advice=did_you_mean(verb[1], _verbs(context)) or listed,
        )  # fmt: skip
    if choice := _CHOICE.search(text):
        advice = did_you_mean(choice["found"], re.findall("'([^']*)'", choice["known"]))
    else:
        advice = None
    help_line = f"{command} --help shows how it is used"
    return JobError(text.replace(_NOISE, "").rstrip("."), where=command, advice=advice or help_line)


def _options(context: Any) -> list[str]:
    if context is None:
        return []
    return [word for option in context.command.params for word in option.opts if word[:1] == "-"]


def _verbs(context: Any) -> list[str]:
    return [] if context is None else list(context.command.list_commands(context))
