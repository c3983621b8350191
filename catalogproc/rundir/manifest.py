"""Which run an output folder holds: run.json, written at the first start, then compared."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from catalogproc.contract import load_contract
from catalogproc.errors import CatalogprocError, Refusal, ResumeError
from catalogproc.io.atomic import as_json, remove_stale, write_atomic, write_error
from catalogproc.io.hashes import sha256

if TYPE_CHECKING:
    from catalogproc.job import Job
    from catalogproc.network.bundle import Bundle

RUN_FILE = "run.json"
CATALOG, REJECTED, RECEIPTS = "catalog", "rejected", "receipts"
FOLDERS = (CATALOG, REJECTED, RECEIPTS)
CONTRACTS = ("catalog", "rejected", "receipt")
SHOWN = 5
"""How many files a message names before it counts the rest."""


@dataclass(frozen=True)
class InputFile:
    """An input file as the user named it, with its fingerprint; rows where known beforehand."""

    path: str
    fingerprint: str
    rows: int | None = None


def shown_path(path: Path) -> str:
    """A file's path as run.json and provenance.json may hold it: without a user's name.

    Below the working folder it is relative to it, below the home folder it starts with ~.
    """
    path = Path(path)
    for base, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        if path.is_absolute() and path.is_relative_to(base) and base != Path("/"):
            return prefix + path.relative_to(base).as_posix()
    return path.as_posix()


@dataclass(frozen=True)
class RunIdentity:
    """What makes a run this run: job, model, input, companions and the contracts' versions.

    ``job`` and ``model`` hold what people read (names, labels, what the model was trained
    on); equality of runs is decided by hashes, fingerprints and versions.
    """

    job: Mapping[str, Any]
    job_hash: str
    model: Mapping[str, Any]
    model_hash: str
    inputs: tuple[InputFile, ...]
    companions: tuple[InputFile, ...] = ()
    contracts: Mapping[str, int] = field(
        default_factory=lambda: {name: load_contract(name).version for name in CONTRACTS}
    )

    @classmethod
    def of(
        cls,
        job: Job,
        bundle: Bundle,
        inputs: Sequence[InputFile],
        companions: Sequence[InputFile] = (),
    ) -> Self:
        return cls(
            job={"name": job.name, "description": job.description} | job.to_dict(),
            job_hash=job.hash,
            model={
                "name": bundle.name,
                "description": bundle.description,
                "training": dict(bundle.training),
            },
            model_hash=bundle.hash,
            inputs=tuple(inputs),
            companions=tuple(companions),
        )

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of all that decides; where files lie and what they are called does not."""
        decides = {
            "job": self.job_hash,
            "model": self.model_hash,
            "inputs": sorted(file.fingerprint for file in self.inputs),
            "companions": sorted(file.fingerprint for file in self.companions),
            "contracts": dict(self.contracts),
        }
        text = json.dumps(decides, sort_keys=True, separators=(",", ":"))
        return sha256(text.encode())

    @property
    def run_id(self) -> str:
        """The first 8 hexadecimal digits of the hash, as in the catalog's run_id."""
        return self.hash[:8]

    @property
    def model_id(self) -> str:
        """The first 8 hexadecimal digits of the model's hash, as in the catalog's model_id."""
        return self.model_hash[:8]

    def to_dict(self) -> dict[str, Any]:
        content = asdict(self)
        return {"run_id": self.run_id, "hash": self.hash} | content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Raises ValueError, TypeError or KeyError when it is not what to_dict wrote."""
        known = {name: content[name] for name in (item.name for item in fields(cls))}
        for name in ("inputs", "companions"):
            known[name] = tuple(InputFile(**file) for file in known[name])
            for file in known[name]:
                words = (file.path, file.fingerprint)
                if not all(isinstance(word, str) for word in words) or (
                    type(file.rows) not in (int, type(None))
                ):
                    raise ValueError(f"{name} holds no file: {str(file)[:80]}")
                if file.fingerprint and not file.fingerprint.isalnum():
                    raise ValueError(f"{name} holds a file without a hash: {str(file)[:80]}")
        identity = cls(**known)
        if identity.hash != content["hash"]:
            raise ValueError("its content does not have its hash")
        return identity


def read_identity(folder: Path) -> RunIdentity:
    """The run that an output folder holds.

    Raises
    ------
    ResumeError
        The folder holds no run, or run.json cannot be read.
    """
    path = Path(folder) / RUN_FILE
    try:
        content = json.loads(path.read_bytes())
        json.dumps(content, allow_nan=False)  # what follows is to be written as JSON again
        return RunIdentity.from_dict(content)
    except FileNotFoundError:
        raise ResumeError(
            "this folder holds no run of catalogproc", wanted=RUN_FILE, where=folder,
            advice="name the folder that was the --output of a run",
        ) from None  # fmt: skip
    except (ValueError, TypeError, KeyError, OSError, RecursionError) as error:
        raise ResumeError(
            "run.json cannot be read, so it is unknown which run this folder holds",
            found=error, where=path, advice="give another --output",
        ) from None  # fmt: skip


def claim(folder: Path, identity: RunIdentity) -> bool:
    """Make an output folder this run's, or find that it is already.

    At the first start the folder is made and run.json written; at a later one the two runs
    are compared. Temporary files of killed processes are removed.

    Returns
    -------
    bool
        Whether the folder held this run before.

    Raises
    ------
    ResumeError
        The folder holds another run; every field that differs is named.
    Refusal
        The folder cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise Refusal(
            "the output is not a folder", wanted="a folder, or a name that is free", where=folder,
            advice="give another --output",
        )  # fmt: skip
    resumed = (folder / RUN_FILE).exists()
    if not resumed:
        _first_start(folder, identity)
    old = read_identity(folder)
    if differing := compare(old, identity):
        raise ResumeError(
            "the output folder holds another run",
            found="\n    ".join(["", *differing]),
            where=folder,
            advice="give another --output, or the same job, model and input as before",
        )
    remove_stale([folder, *(folder / name for name in FOLDERS)])
    return resumed


def _first_start(folder: Path, identity: RunIdentity) -> None:
    held = [name for name in FOLDERS if any((folder / name).glob("[!.]*"))]
    if held:
        raise ResumeError(
            "the output folder holds parts of a run, but not run.json that says which",
            found=", ".join(held), where=folder, advice="give another --output",
        )  # fmt: skip
    try:
        for name in FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refusal.of(write_error(error, folder)) from None
    try:
        write_atomic(folder / RUN_FILE, as_json(identity.to_dict()), overwrite=False)
    except CatalogprocError as error:
        # Taken in the meantime: another start of, perhaps, the same run. It is compared.
        if not (folder / RUN_FILE).exists():
            raise Refusal.of(error) from None


def compare(old: RunIdentity, new: RunIdentity) -> list[str]:
    """What differs between two runs, a line a field; empty where they are the same run."""
    lines = []
    if old.job_hash != new.job_hash:
        lines += _differing("job", old.job, new.job) or ["job.hash: differs"]
    if old.model_hash != new.model_hash:
        was, now = (f"{run.model.get('name')} ({run.model_id})" for run in (old, new))
        lines.append(f"model: was {was}, is {now}")
    for word, was_files, now_files in (
        ("input", old.inputs, new.inputs),
        ("gaia-source", old.companions, new.companions),
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
    gone = [file.path for file in old if file.fingerprint not in now]
    added = [file.path for file in new if file.fingerprint not in before]
    changed = sorted(set(gone) & set(added))
    said = (
        ("added", [path for path in added if path not in changed]),
        ("gone", [path for path in gone if path not in changed]),
        ("changed", changed),
    )
    words = [f"{verb} {_list(paths)}" for verb, paths in said if paths]
    return [f"{word}: " + ("; ".join(words) or "a file is named more or fewer times")]


def _list(paths: Sequence[str]) -> str:
    more = len(paths) - SHOWN
    return ", ".join(paths[:SHOWN]) + (f" and {more} more" if more > 0 else "")
