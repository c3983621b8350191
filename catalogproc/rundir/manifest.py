"""run.json: the run that an output folder holds; written at the first start, then compared."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from catalogproc.contract import load_contract
from catalogproc.errors import CatalogprocError, Refusal, ReleaseError, ResumeError
from catalogproc.io.atomic import as_json, write_atomic, write_error
from catalogproc.io.hashes import sha256
from catalogproc.io.output import check_output_folder
from catalogproc.io.remote_file import File, RemoteFile
from catalogproc.io.temporary_files import remove_stale
from catalogproc.release import Release

if TYPE_CHECKING:
    from catalogproc.job import Job
    from catalogproc.network.bundle import Bundle

RUN_FILE = "run.json"
LOCK_FILE = ".lock"
"""The lock of the run that uses a folder; it names the process, also after its end."""
LOG_FILE = "log.jsonl"
"""The events of a run, one JSON object a line."""
CATALOG = "catalog"
POSTERIOR = "posterior"
REJECTED = "rejected"
RECEIPTS = "receipts"
FOLDERS = (CATALOG, POSTERIOR, REJECTED, RECEIPTS)
"""All folders of a run; POSTERIOR exists where the job asks for it."""
CONTRACTS = ("catalog", "rejected", "receipt")
SHOWN = 5
"""Number of files that a message names; the others are counted."""


@dataclass(frozen=True)
class InputFile:
    """An input file.

    Attributes
    ----------
    path
        As the user named it.
    fingerprint
        Hash (hex) of its size and its ends; empty if it could not be read.
    rows
        Number of rows; None where only reading the whole file tells.
    """

    path: str
    fingerprint: str
    rows: int | None = None


def shown_path(path: File) -> str:
    """Return a path without the user's name, for run.json and provenance.json.

    Parameters
    ----------
    path
        The path. Below the working folder it is shown relative to it, below the home folder
        it begins with ``~``.
    """
    if isinstance(path, RemoteFile):
        return str(path)
    path = Path(path)
    for base, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        if path.is_absolute() and path.is_relative_to(base) and base != Path("/"):
            return prefix + path.relative_to(base).as_posix()
    return path.as_posix()


@dataclass(frozen=True)
class RunIdentity:
    """The job, model, input, auxiliary tables and contract versions that define a run.

    ``job`` and ``model`` hold what people read (names, labels, training data); whether two
    runs are the same is decided by hashes, fingerprints and versions.

    Attributes
    ----------
    job, job_hash
        The job's fields, and their hash.
    model, model_hash
        Name, description and training of the model, and the bundle's hash.
    release
        The Gaia release of the spectra, as its file states it.
    inputs
        The files of spectra.
    auxiliary
        The gaia_source and auxiliary tables, joined by source_id.
    contracts
        Version of each table contract.
    """

    job: Mapping[str, Any]
    job_hash: str
    model: Mapping[str, Any]
    model_hash: str
    release: Mapping[str, Any]
    inputs: tuple[InputFile, ...]
    auxiliary: tuple[InputFile, ...] = ()
    contracts: Mapping[str, int] = field(default_factory=lambda: _versions(CONTRACTS))

    @classmethod
    def of(
        cls,
        job: Job,
        bundle: Bundle,
        inputs: Sequence[InputFile],
        auxiliary: Sequence[InputFile] = (),
    ) -> Self:
        """Return the identity of a run.

        Parameters
        ----------
        job, bundle
            The job and the model.
        inputs, auxiliary
            The files of spectra; the gaia_source and auxiliary tables.
        """
        return cls(
            job={"name": job.name, "description": job.description} | job.to_dict(),
            job_hash=job.hash,
            model={
                "name": bundle.name,
                "description": bundle.description,
                "training": dict(bundle.training),
            },
            model_hash=bundle.hash,
            release=bundle.release.to_dict(),
            inputs=tuple(inputs),
            auxiliary=tuple(auxiliary),
            contracts=_versions((*CONTRACTS, POSTERIOR) if job.posterior else CONTRACTS),
        )

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of everything that defines the run; paths and names do not."""
        content = {
            "job": self.job_hash,
            "model": self.model_hash,
            "release": dict(self.release),
            "inputs": sorted(file.fingerprint for file in self.inputs),
            # In their order: where two tables have a value, that of the first one counts.
            "auxiliary": [file.fingerprint for file in self.auxiliary],
            "contracts": dict(self.contracts),
        }
        return sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())

    @cached_property
    def data_release(self) -> Release:
        """The Gaia release of the spectra."""
        return Release.from_dict(self.release)

    @property
    def run_id(self) -> str:
        """The first 8 hexadecimal digits of the hash, as in the catalog's run_id."""
        return self.hash[:8]

    @property
    def model_id(self) -> str:
        """The first 8 hexadecimal digits of the model's hash, as in the catalog's model_id."""
        return self.model_hash[:8]

    def to_dict(self) -> dict[str, Any]:
        """Return the content of run.json."""
        return {"run_id": self.run_id, "hash": self.hash} | asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return the identity that a run.json holds.

        Parameters
        ----------
        content
            The content of run.json, as :meth:`to_dict` gives it.

        Raises
        ------
        ValueError, TypeError, KeyError
            It is not what :meth:`to_dict` gave.
        """
        values = {name: content[name] for name in (item.name for item in fields(cls))}
        for name in ("inputs", "auxiliary"):
            values[name] = tuple(InputFile(**file) for file in values[name])
            for file in values[name]:
                _check_file(name, file)
        identity = cls(**values)
        try:
            _ = identity.data_release
        except ReleaseError as error:
            raise ValueError(error.text(advice=False)) from None
        if identity.hash != content["hash"]:
            raise ValueError("its content does not have its hash")
        return identity


def _versions(names: Sequence[str]) -> dict[str, int]:
    return {name: load_contract(name).version for name in names}


def _check_file(name: str, file: InputFile) -> None:
    texts = isinstance(file.path, str) and isinstance(file.fingerprint, str)
    if not texts or type(file.rows) not in (int, type(None)):
        raise ValueError(f"{name} has an entry that is no file: {str(file)[:80]}")
    if file.fingerprint and not file.fingerprint.isalnum():
        raise ValueError(f"{name} has a file without a hash: {str(file)[:80]}")


def read_identity(folder: Path) -> RunIdentity:
    """Return the run that an output folder holds.

    Parameters
    ----------
    folder
        The output folder of a run.

    Raises
    ------
    ResumeError
        The folder holds no run, or run.json cannot be read.
    """
    path = Path(folder) / RUN_FILE
    try:
        content = json.loads(path.read_bytes())
        json.dumps(content, allow_nan=False)  # parts of it are written as JSON again
        return RunIdentity.from_dict(content)
    except (FileNotFoundError, NotADirectoryError):
        raise ResumeError(
            "this folder holds no run of catalogproc", wanted=f"a folder with {RUN_FILE}",
            found=_content(Path(folder)), where=folder,
            advice="name the folder that was the --output of a run",
        ) from None  # fmt: skip
    except (ValueError, TypeError, KeyError, OSError, RecursionError) as error:
        raise ResumeError(
            "run.json cannot be read, so it is unknown which run this folder holds",
            found=error, where=path, advice="give another --output",
        ) from None  # fmt: skip


def open_run(folder: Path, identity: RunIdentity) -> bool:
    """Start a run in an output folder, or resume it.

    At the first start the folder is created and run.json written; later the two runs are
    compared. Temporary files of processes that were killed are removed.

    Parameters
    ----------
    folder
        The output folder.
    identity
        The run.

    Returns
    -------
    bool
        Whether the folder held this run before.

    Raises
    ------
    ResumeError
        The folder holds a different run; the fields that differ are listed.
    Refusal
        The folder cannot be written.
    """
    folder = Path(folder)
    check_output_folder(folder, writable=False)
    resumed = (folder / RUN_FILE).exists()
    if not resumed:
        _start(folder, identity)
    check_same_run(folder, identity)
    remove_stale([folder, *(folder / name for name in FOLDERS)])
    return resumed


def check_same_run(folder: Path, identity: RunIdentity) -> None:
    """Refuse a folder that holds a different run.

    Parameters
    ----------
    folder
        The output folder of a run.
    identity
        The run that is to be resumed there.

    Raises
    ------
    ResumeError
        It holds a different run, and the fields that differ are listed; or none.
    """
    if differing := compare(read_identity(folder), identity):
        raise ResumeError(
            "the output folder holds a different run",
            found="\n    ".join(["", *differing]),
            where=folder,
            advice="give another --output, or the job, model and input of that run",
        )


def _start(folder: Path, identity: RunIdentity) -> None:
    used = [name for name in FOLDERS if any((folder / name).glob("[!.]*"))]
    if used:
        raise ResumeError(
            "the output folder holds parts of a run, but no run.json to say which",
            found=", ".join(used), where=folder, advice="give another --output",
        )  # fmt: skip
    try:
        for name in FOLDERS:
            if name != POSTERIOR or POSTERIOR in identity.contracts:
                (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refusal.of(write_error(error, folder)) from None
    try:
        write_atomic(folder / RUN_FILE, as_json(identity.to_dict()), overwrite=False)
    except CatalogprocError as error:
        # If another process wrote run.json in the meantime, the two runs are compared.
        if not (folder / RUN_FILE).exists():
            raise Refusal.of(error) from None


def compare(old: RunIdentity, new: RunIdentity) -> list[str]:
    """Return the differences of two runs, one line per field; empty for the same run.

    Parameters
    ----------
    old, new
        The run in the folder, and the one to be started.
    """
    lines = []
    if old.job_hash != new.job_hash:
        lines += _differing("job", old.job, new.job) or ["job.hash: differs"]
    if old.model_hash != new.model_hash:
        was, now = (f"{run.model.get('name')} ({run.model_id})" for run in (old, new))
        lines.append(f"model: was {was}, is {now}")
    if dict(old.release) != dict(new.release):
        was, now = (f"{r.name} ({r.hash[:8]})" for r in (old.data_release, new.data_release))
        lines.append(f"release: was {was}, is {now}")
    for word, was_files, now_files in (
        ("input", old.inputs, new.inputs),
        ("gaia-source", old.auxiliary, new.auxiliary),
    ):
        lines += _differing_files(word, was_files, now_files)
    lines += _differing("contract", old.contracts, new.contracts)
    return lines


def _differing(word: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    ignored = ("name", "description")
    before, now = (json.loads(json.dumps(dict(side), default=str)) for side in (old, new))
    return [
        f"{word}.{name}: was {before.get(name)!r}, is {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if name not in ignored and before.get(name) != now.get(name)
    ]


def _differing_files(word: str, old: Sequence[InputFile], new: Sequence[InputFile]) -> list[str]:
    before = Counter(file.fingerprint for file in old)
    now = Counter(file.fingerprint for file in new)
    if before == now:
        return []
    # A file that only moved keeps its fingerprint, and is no difference.
    removed = [file.path for file in old if file.fingerprint not in now]
    added = [file.path for file in new if file.fingerprint not in before]
    changed = sorted(set(removed) & set(added))
    lists = (
        ("added", [path for path in added if path not in changed]),
        ("removed", [path for path in removed if path not in changed]),
        ("changed", changed),
    )
    words = [f"{verb} {_shown(paths)}" for verb, paths in lists if paths]
    return [f"{word}: " + ("; ".join(words) or "a file is named more or fewer times")]


def _shown(paths: Sequence[str]) -> str:
    more = len(paths) - SHOWN
    return ", ".join(paths[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _content(folder: Path) -> str:
    """Say what is in a folder that holds no run, or at its path."""
    if not folder.exists():
        return "no such folder"
    if not folder.is_dir():
        return "a file"
    return "other files" if any(folder.iterdir()) else "an empty folder"
