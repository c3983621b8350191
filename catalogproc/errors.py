"""Every error that catalogproc raises on purpose.

    CatalogprocError
    ├── Refusal                 nothing has started: exit code 2
    │   ├── JobError            a job file or a command line that cannot be carried out
    │   ├── ContractError       a contract in schemas/, or a table that breaks one
    │   ├── BundleError         a trained model that is missing, changed or of another kind
    │   ├── ReleaseError        a file of a Gaia release that the model does not read
    │   └── ResumeError         an output folder that holds another run
    ├── InputError              one input file cannot be read: its chunk fails, others go on
    ├── CountError              rows in and rows out disagree: the chunk fails
    ├── WorkerError             a worker without a working model was handed work
    └── VerifyError             a finished catalog that is not what its receipts say

Each says what was wanted, what was found, where, and what to do about it.
"""

from __future__ import annotations

import re
from typing import Any

# A secret key of S3 may hold slashes; a name without a password cannot. A pathlib.Path makes
# one slash of two.
_CREDENTIALS = re.compile(
    r"\b([a-z][a-z0-9+.-]*:/{1,2})(?:[^/\s\"'@:]*:[^\s\"'@]+|[^/\s\"'@]+)@", re.I
)
_SECRETS = re.compile(
    r"((?:secret|password|passwd|token|signature|credential|access_?key)[\w-]*=)[^&\s\"']+", re.I
)


def masked(text: str) -> str:
    """A text without what a URL may carry that is nobody else's: user:password@, ?token=…"""
    if ":/" not in text:
        return text
    return _SECRETS.sub(r"\1…", _CREDENTIALS.sub(r"\1…@", text))


class CatalogprocError(Exception):
    """An error in the user's words.

    Parameters
    ----------
    message
        What went wrong, in one sentence.
    wanted, found
        What would have been right, and what was there instead.
    where
        The file, column, row or field.
    todo
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
        todo: str | None = None,
    ) -> None:
        self.message = message
        self.details: dict[str, object] = {
            name: value
            for name, value in (
                ("wanted", wanted),
                ("found", found),
                ("where", where),
                ("what to do", todo),
            )
            if value is not None
        }
        super().__init__(self._text())

    def _text(self) -> str:
        lines = [self.message]
        lines += [f"  {name}: {value}" for name, value in self.details.items()]
        return masked("\n".join(lines))

    def __reduce__(self) -> tuple[Any, ...]:
        # Dask carries errors between processes by pickle; keyword arguments need this.
        return (_rebuild, (type(self), self.message, {k: str(v) for k, v in self.details.items()}))


def _rebuild(
    kind: type[CatalogprocError], message: str, details: dict[str, object]
) -> CatalogprocError:
    error = kind(message)
    error.details = details
    error.args = (error._text(),)
    return error


class Refusal(CatalogprocError):
    """Refused before anything started."""

    exit_code = 2


class JobError(Refusal):
    """A job file or a command line that cannot be carried out."""


class ContractError(Refusal):
    """A contract in schemas/ that is wrong, or a table that breaks one."""


class BundleError(Refusal):
    """A trained model that is missing, changed on disk, or of another kind."""


class ReleaseError(Refusal):
    """A file of a Gaia release that the model's vocabulary does not have."""


class ResumeError(Refusal):
    """An output folder that holds another run."""


class InputError(CatalogprocError):
    """An input file that cannot be read; its chunk fails, the others go on."""


class CountError(CatalogprocError):
    """Rows in and rows out that disagree."""


class WorkerError(CatalogprocError):
    """A worker that has no working model and was handed work all the same."""


class VerifyError(CatalogprocError):
    """A finished catalog that is not what its receipts say."""
