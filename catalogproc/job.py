"""Jobs: the settings of a run or of a training that can change a number, from a TOML file.

Folders, workers and devices are options of the command line and not part of a job. The hash of
a job covers everything in it that can change a number.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from catalogproc.errors import JobError, did_you_mean
from catalogproc.resources import shipped

T = TypeVar("T")

DUST_MAPS = ("combined19",)
PRECISIONS = ("auto", "float32", "bfloat16")
PROPAGATIONS = ("auto", "network", "first_order", "sampled", "none")
MIN_DRAWS = 16
MIN_POSTERIOR, MAX_POSTERIOR = 8, 1024


@dataclass(frozen=True)
class Job:
    """The settings of a run.

    Attributes
    ----------
    labels
        Tokens to predict; none is every label that the model and the catalog have.
    inputs
        Tokens, besides the spectral coefficients, that the model may read.
    coefficients
        Largest number of coefficients per band that are read, the lowest first.
    mask_irrelevant
        Leave out coefficients past the number of relevant bases, as in training.
    chunk_rows
        Approximate number of stars in a chunk, which is one part of the catalog.
    propagation
        How input errors are propagated into the predictions, one of PROPAGATIONS:
        ``network`` by a model that reads errors, whose sigma is the total uncertainty;
        ``first_order`` by derivatives, ``sampled`` by random draws (and by derivatives too, for
        comparison), ``none`` not at all; ``auto`` is ``network`` for models that read errors and
        ``first_order`` for others.
    draws
        Number of random draws per star where propagation is ``sampled``.
    inflate_errors
        Multiply the published errors of coefficients by the factor by which they are known to
        be too small (features/input_errors.py).
    correlations
        Read the correlations of the coefficients where the input has them: 15 times the bytes.
    check_spectrum
        Predict some coefficients of each star from the others, for the flag SPEC_CHI2. Doubles
        the work.
    dust
        Dust map for ``logebv`` where no E(B-V) is given, one of DUST_MAPS; empty for none.
    precision
        Number type in which the network multiplies, one of PRECISIONS. ``auto`` is ``bfloat16``
        where the processor is fast with it and a check of the model found that its predictions
        and flags hardly change, else ``float32`` (network/precision.py).
    posterior
        Number of equally probable values of mass, log_age and m_h that are written for each star
        beside the catalog; 0 for none.
    """

    name: str
    description: str = ""
    labels: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ("bprp", "jh", "jk", "logebv", "g_fakemag")
    coefficients: int = 30
    mask_irrelevant: bool = True
    chunk_rows: int = 50_000
    dust: str = ""
    propagation: str = "auto"
    draws: int = 128
    inflate_errors: bool = True
    correlations: bool = False
    check_spectrum: bool = False
    precision: str = "auto"
    posterior: int = 0

    def __post_init__(self) -> None:
        for name in ("labels", "inputs"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise JobError("a token is named twice", found=values, where=f"job.{name}")
        if self.dust not in ("", *DUST_MAPS):
            raise JobError(
                "no such dust map", wanted=" | ".join(DUST_MAPS), found=self.dust, where="job.dust"
            )
        if self.dust and "logebv" not in self.inputs:
            raise JobError(
                "the job names a dust map and does not read logebv",
                wanted="logebv among the inputs, or no map", found=self.inputs, where="job.dust",
            )  # fmt: skip
        if self.propagation not in PROPAGATIONS:
            raise JobError(
                "no such error propagation",
                wanted=" | ".join(PROPAGATIONS), found=self.propagation, where="job.propagation",
            )  # fmt: skip
        if self.precision not in PRECISIONS:
            raise JobError(
                "no such precision",
                wanted=" | ".join(PRECISIONS), found=self.precision, where="job.precision",
            )  # fmt: skip
        if self.draws < MIN_DRAWS:
            raise JobError(
                "too few draws to measure a scatter",
                wanted=f"{MIN_DRAWS} or more", found=self.draws, where="job.draws",
            )  # fmt: skip
        if self.posterior and not MIN_POSTERIOR <= self.posterior <= MAX_POSTERIOR:
            raise JobError(
                "a posterior cannot have so many values",
                wanted=f"{MIN_POSTERIOR} to {MAX_POSTERIOR}, or 0 for none", found=self.posterior,
                where="job.posterior",
            )  # fmt: skip
        for name in ("coefficients", "chunk_rows"):
            if getattr(self, name) < 1:
                raise JobError(
                    "must be positive", wanted="1 or more", found=getattr(self, name),
                    where=f"job.{name}",
                )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return every setting that can change a number, for the hash and for provenance."""
        content = asdict(self)
        del content["name"], content["description"]
        for name in ("dust", "posterior"):
            if not content[name]:
                del content[name]  # keeps the hash of jobs that were written before there was such
        if self.precision == "auto":
            del content["precision"]
        return content

    def propagation_of(self, reads_errors: bool) -> str:
        """Return how input errors are propagated: never ``auto``.

        Parameters
        ----------
        reads_errors
            Whether the model reads errors.
        """
        if self.propagation != "auto":
            return self.propagation
        return "network" if reads_errors else "first_order"

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of :meth:`to_dict` as canonical JSON."""
        return _hash(self.to_dict())


@dataclass(frozen=True)
class TrainingJob:
    """The settings of a training; each table is read by the module that it concerns.

    A job with a table ``data`` trains on a dataset of real stars, the others on simulated stars; a
    table ``real`` mixes other real stars in. A table ``errors`` says which errors a network that
    reads errors is shown, a table ``augmentation`` which stars of a dataset are moved to other
    distances and behind dust. ``basis`` is that of the coefficients: ``archive`` or
    ``canonical``; by default that of the dataset or of the model that is fine-tuned, else
    ``archive``.
    """

    name: str
    bundle: str
    description: str = ""
    network: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    simulation: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w][\w.-]*", self.bundle):
            raise JobError(
                "the bundle's name cannot be the name of a folder",
                wanted="letters, digits, . _ -: it is made in the --output",
                found=repr(self.bundle), where="job.bundle",
            )  # fmt: skip

    real: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, Any] = field(default_factory=dict)
    augmentation: Mapping[str, Any] = field(default_factory=dict)
    basis: str = ""

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of the settings as canonical JSON."""
        content = asdict(self)
        del content["name"], content["description"]
        for name in ("data", "real", "errors", "augmentation", "basis"):
            if not content[name]:
                del content[name]  # keeps the hash of jobs that were written before there were such
        return _hash(content)


def load_job(name_or_path: str | Path) -> Job:
    """Load the job of a run.

    Parameters
    ----------
    name_or_path
        The name of a shipped job, or a TOML file.

    Raises
    ------
    JobError
        No such job, or a field that is wrong; the message names it.

    Examples
    --------
    >>> import catalogproc, dataclasses
    >>> job = catalogproc.load_job("gaia-dr3-giants")
    >>> job.coefficients
    30
    >>> fewer = dataclasses.replace(job, name="mine", coefficients=12)
    """
    path, content = _read(name_or_path, "run")
    return _build(Job, content, path)


def load_training_job(name_or_path: str | Path) -> TrainingJob:
    """Load the job of a training.

    Parameters
    ----------
    name_or_path
        The name of a shipped job, or a TOML file.

    Raises
    ------
    JobError
        No such job, or a field that is wrong; the message names it.
    """
    path, content = _read(name_or_path, "train")
    return _build(TrainingJob, content, path)


def shipped_jobs() -> tuple[str, ...]:
    """Return the names of the jobs that ship, in alphabetical order."""
    return tuple(sorted(path.stem for path in shipped("jobs").glob("*.toml")))


def _hash(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _read(name_or_path: str | Path, kind: str) -> tuple[Path, dict[str, Any]]:
    path = Path(name_or_path)
    if not path.is_file() and path.suffix != ".toml":
        path = shipped("jobs") / f"{path}.toml"
    if not path.is_file():
        raise JobError(
            "no such job",
            wanted=f"a TOML file, or one of {', '.join(shipped_jobs())}",
            found=str(name_or_path),
            advice=did_you_mean(name_or_path, shipped_jobs()),
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise JobError("the job file cannot be read", found=error, where=path) from None
    found = content.pop("kind", None)
    if found != kind:
        raise JobError("a job of another kind", wanted=f'kind = "{kind}"', found=found, where=path)
    content.setdefault("name", path.stem)
    return path, content


def _build(kind: type[T], content: dict[str, Any], path: Path) -> T:
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    for name, value in content.items():
        if name not in known:
            raise JobError(
                "unknown field of a job",
                wanted=", ".join(known), found=name, where=path,
                advice=did_you_mean(name, known),
            )  # fmt: skip
        content[name] = _typed(value, str(known[name].type), f"{path}, field {name}")
    try:
        return kind(**content)
    except TypeError as error:
        raise JobError("a field is missing", found=error, where=path) from None


def _typed(value: Any, declared: str, where: str) -> Any:
    """Return the TOML value in the type that the dataclass declares. Raises JobError."""
    if declared == "tuple[str, ...]" and isinstance(value, list):
        if all(isinstance(item, str) for item in value):
            return tuple(value)
    elif type(value) is {"str": str, "bool": bool, "int": int}.get(declared, dict):
        return value
    raise JobError("wrong type", wanted=declared, found=repr(value), where=where)
