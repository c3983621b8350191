"""Every error that catalogproc raises on purpose.

::

    CatalogprocError
    ├── Refusal                 nothing has started: exit code 2
    │   ├── JobError            a job file or a command line that cannot be used
    │   ├── ContractError       a contract in schemas/ is wrong, or a table breaks one
    │   ├── BundleError         a trained model is missing, was changed, or is of another kind
    │   ├── ReleaseError        a file of a Gaia release that the model does not read
    │   ├── ResumeError         the output folder holds another run
    │   └── LockedError         another process is using the same folder or device
    ├── InputError              an input file cannot be read: its chunk fails, others go on
    ├── CountError              rows read and rows written disagree: the chunk fails
    ├── DiskFullError           no space left to write: the run stops
    ├── TransientError          a disk or file server failed: the chunk is tried again
    ├── DownloadError           the archive does not hand out a file: its partition fails
    ├── DeviceError             a GPU failed: its worker is restarted
    ├── WorkerError             a worker without a working model received a chunk
    └── VerifyError             a finished catalog does not agree with its receipts

Each error states what was wanted, what was found, where, and what the user can do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Self

# An S3 secret key may contain slashes; a user name without a password cannot. pathlib.Path
# turns two slashes into one.
_CREDENTIALS = re.compile(
    r"\b([a-z][a-z0-9+.-]*:/{1,2})(?:[^/\s\"'@:]*:[^\s\"'@]+|[^/\s\"'@]+)@", re.I
)
_SECRETS = re.compile(
    r"((?:secret|password|passwd|token|signature|credential|access_?key)[\w-]*=)[^&\s\"']+", re.I
)


def masked(text: str) -> str:
    """Mask credentials in URLs: ``user:password@`` and ``?token=…``.

    Parameters
    ----------
    text
        Any text.

    Returns
    -------
    str
        The text with ``…`` in place of each credential.
    """
    if ":/" not in text:
        return text
    return _SECRETS.sub(r"\1…", _CREDENTIALS.sub(r"\1…@", text))


def did_you_mean(found: object, known: Iterable[str]) -> str | None:
    """Return advice that names the known word closest to a wrong one; None if none is close.

    Parameters
    ----------
    found
        The word that was given.
    known
        All words that would have been right.
    """
    words = {word.lower(): word for word in known}
    wrong = str(found).lower()
    near = get_close_matches(wrong, words, n=5, cutoff=0.66)
    # Of similar words, the one with the fewest slips: export, not report, for epxort.
    best = min(near, key=lambda word: _slips(wrong, word), default=None)
    return None if best is None else f"did you mean {words[best]}?"


def _slips(found: str, meant: str) -> int:
    """Letters inserted, left out, changed, or exchanged with their neighbour between two words."""
    before: list[int] = []
    row = list(range(len(meant) + 1))
    for i, letter in enumerate(found, start=1):
        after = [i]
        for j, wanted in enumerate(meant, start=1):
            cost = min(row[j] + 1, after[j - 1] + 1, row[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and (letter, found[i - 2]) == (meant[j - 2], wanted):
                cost = min(cost, before[j - 2] + 1)
            after.append(cost)
        before, row = row, after
    return row[-1]


def plural(count: int, word: str, many: str | None = None) -> str:
    """Return a number with its word: "1 row", "2 rows", "3 spectra".

    Parameters
    ----------
    count
        The number.
    word
        The singular.
    many
        The plural of a noun that is not regular.
    """
    return f"{count:,} {word if count == 1 else many or f'{word}s'}"


def refuse_windows() -> None:
    """Raise a Refusal on Windows, whose file locks and renames are others than those used here."""
    if os.name == "nt":
        raise Refusal(
            "catalogproc does not run on Windows",
            wanted="Linux or macOS",
            found="Windows",
            advice="use the Windows Subsystem for Linux: wsl --install",
        )


class CatalogprocError(Exception):
    """An error with a message for the user.

    Parameters
    ----------
    message
        What went wrong, in one sentence.
    wanted, found
        What is required, and what was there instead.
    where
        The file, column, row or field.
    advice
        What the user can do about it.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        wanted: object = None,
        found: object = None,
        where: object = None,
        advice: str | None = None,
    ) -> None:
        self.message = message
        self.wanted, self.found, self.where, self.advice = wanted, found, where, advice
        super().__init__(self.text())

    @property
    def details(self) -> dict[str, object]:
        """The stated fields among wanted, found and where, by name."""
        fields = {"wanted": self.wanted, "found": self.found, "where": self.where}
        return {name: value for name, value in fields.items() if value is not None}

    def text(self, *, advice: bool = True) -> str:
        """Return the message and its fields, one per line, without credentials.

        Parameters
        ----------
        advice
            Whether the advice is included.
        """
        lines = [self.message]
        for name, value in self.details.items():
            text = str(value)  # a list begins in the next line
            lines.append(f"  {name}:{text}" if text.startswith("\n") else f"  {name}: {text}")
        if advice and self.advice is not None:
            lines.append(f"  what to do: {self.advice}")
        return masked("\n".join(lines))

    @classmethod
    def of(cls, error: CatalogprocError) -> Self:
        """Return an error of this class with the message and fields of another one.

        Parameters
        ----------
        error
            The other error.
        """
        return cls(
            error.message,
            wanted=error.wanted,
            found=error.found,
            where=error.where,
            advice=error.advice,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # Dask sends errors between processes by pickle, which drops keyword arguments. Fields
        # are sent as text because their own classes may not be importable there.
        fields = {**self.details, "advice": self.advice}
        stated = {name: str(value) for name, value in fields.items() if value is not None}
        return (_rebuilt, (type(self), self.message, stated))


def _rebuilt(
    kind: type[CatalogprocError], message: str, fields: dict[str, str]
) -> CatalogprocError:
    return kind(message, **fields)


class Refusal(CatalogprocError):
    """A command was refused before anything started."""

    exit_code = 2


class JobError(Refusal):
    """A job file or a command line cannot be used."""


class ContractError(Refusal):
    """A contract in schemas/ is wrong, or a table breaks one."""


class BundleError(Refusal):
    """A trained model is missing, was changed on disk, or is of another kind."""


class ReleaseError(Refusal):
    """A file belongs to a Gaia release that the model's vocabulary does not have."""


class ResumeError(Refusal):
    """An output folder holds another run."""


class LockedError(Refusal):
    """Another process is using the same folder or device; ``found`` names it."""


class InputError(CatalogprocError):
    """An input file cannot be read; its chunk fails, the others go on."""


class CountError(CatalogprocError):
    """Rows read and rows written disagree."""


class DiskFullError(CatalogprocError):
    """No space is left on the disk; a run stops, and what is finished is kept."""


class TransientError(CatalogprocError):
    """A disk or file server failed in a way that may be gone at the next try."""


class DownloadError(CatalogprocError):
    """The archive does not hand out a file, or hands out another one; other files go on."""


class DeviceError(CatalogprocError):
    """A GPU failed, after which its process can no longer use it."""


class WorkerError(CatalogprocError):
    """A worker without a working model received a chunk."""


class VerifyError(CatalogprocError):
    """A finished catalog does not agree with its receipts."""
