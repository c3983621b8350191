"""What a run will do: chunks less valid receipts. Nothing here writes a file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from catalogproc.cluster.dask_cluster import Where, crew, standing
from catalogproc.cluster.result import Failure, rows_of
from catalogproc.errors import InputError, Refusal, ResumeError
from catalogproc.features.dust_map import FACTS, open_dust_map
from catalogproc.inference.engine import check_job
from catalogproc.io.atomic import is_temporary
from catalogproc.io.remote import named
from catalogproc.io.staging import nearest
from catalogproc.job import Job, load_job
from catalogproc.network.bundle import Bundle, load_bundle
from catalogproc.readers.chunks import Chunk, cut, expand, fingerprint
from catalogproc.readers.gaia_source import open_companion
from catalogproc.readers.xp import check_release
from catalogproc.rundir.manifest import FOLDERS, RUN_FILE, read_identity, shown_path
from catalogproc.rundir.receipts import (
    InputFile,
    RunIdentity,
    compare,
    is_valid,
    read_receipt,
    receipt_files,
)

if TYPE_CHECKING:
    from catalogproc.features.dust_map import DustMap
    from catalogproc.vocabulary import Vocabulary

LOCK_FILE = ".lock"
STAGING = ".companion"
BYTES_A_ROW = 300
"""About what a star takes in the output folder."""
_READERS = 8
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Plan:
    """A run before it starts.

    Attributes
    ----------
    chunks
        All chunks, in the order of the files and of their rows.
    done
        Identifiers of the chunks whose receipts are valid.
    spoilt
        Identifiers of those that have a receipt which proves nothing: they are done anew.
    faults
        Files that cannot be read as they are now; each makes a chunk that will fail.
    dust_map
        The staged map that the job reads, if it reads one.
    """

    job: Job
    bundle: Bundle
    inputs: tuple[Path, ...]
    companions: tuple[Path, ...]
    output: Path
    identity: RunIdentity
    chunks: tuple[Chunk, ...]
    done: frozenset[str]
    spoilt: frozenset[str]
    faults: tuple[Failure, ...]
    dust_map: DustMap | None = None

    @cached_property
    def todo(self) -> tuple[Chunk, ...]:
        """What remains."""
        return tuple(chunk for chunk in self.chunks if chunk.id not in self.done)

    @cached_property
    def rows_todo(self) -> int | None:
        """Rows that remain, where every file tells."""
        return _total(self.todo)

    def surveyed(self) -> Plan:
        """The same plan, with the receipts as they are now."""
        done, spoilt = survey(self.output, self.chunks, self.job, self.bundle)
        return replace(self, done=done, spoilt=spoilt)

    def to_dict(self) -> dict[str, Any]:
        """The plan for a program: what it is of, and each chunk with whether it is done."""
        return {
            "run_id": self.identity.run_id,
            "job": self.job.name,
            "job_hash": self.job.hash,
            "model": self.bundle.name,
            "model_hash": self.bundle.hash,
            "output": str(self.output),
            "rows": _total(self.chunks),
            "rows_todo": self.rows_todo,
            "chunks": [
                {
                    "chunk": chunk.id, "file": str(chunk.file), "first_row": chunk.first_row,
                    "rows": chunk.rows, "done": chunk.id in self.done,
                    "spoilt": chunk.id in self.spoilt,
                }
                for chunk in self.chunks
            ],
            "faults": [{"file": fault.file, "cause": fault.cause} for fault in self.faults],
        }  # fmt: skip

    def lines(self, *, short: bool = False) -> list[str]:
        """The plan for the user; where not short, a line a chunk."""
        rows = _total(self.chunks)
        model = f"{self.bundle.name} ({self.bundle.hash[:8]})"
        lines = [
            f"{_count(len(self.inputs), 'file')} of spectra"
            + (f", {rows:,} stars" if rows is not None else "")
            + f", in {_count(len(self.chunks), 'chunk')}; "
            f"{len(self.done):,} done, {len(self.todo):,} to do",
            f"job {self.job.name} ({self.job.hash[:8]}), model {model}, run {self.identity.run_id}",
        ]
        if self.spoilt:
            lines.append(
                f"{_count(len(self.spoilt), 'chunk')} of these done before, but the receipt or "
                "the part does not hold: done anew"
            )
        for fault in self.faults:
            lines += ["cannot be read, and will fail:", *fault.lines()]
        if not short:
            lines += [self._line(chunk) for chunk in self.chunks]
        return lines

    def _line(self, chunk: Chunk) -> str:
        state = "done" if chunk.id in self.done else "to do"
        return f"{state:5}  {chunk.id}  {chunk.file}  {rows_of(chunk)}"


def make_plan(
    inputs: Sequence[str | Path],
    output: Path,
    companions: Sequence[str | Path] = (),
    model: str | Path = "default",
    job: str | Path | Job = "gaia-dr3-giants",
    dust: str | None = None,
    announce: Callable[[str], None] | None = None,
) -> Plan:
    """Read what is asked for, and refuse what can be refused before anything starts.

    Parameters
    ----------
    inputs, companions
        Files, quoted globs, folders or addresses; of spectra, and of gaia_source.
    output
        The folder that is to hold the catalog. It need not exist.
    model, job
        The names of what ships, or paths; a job may be one that was made in Python.
    dust
        The dust map in place of the one that the job names; "none" for none.
    announce
        Called with a line where files are fetched from an address.

    Raises
    ------
    Refusal
        In its several kinds: nothing matches the inputs, no such job or model, a companion
        that cannot be read, spectra of a release that the model does not read, two files with
        the same content, a dust map that is not staged, an output that cannot be written or
        that holds something else.
    ResumeError
        The output holds another run; it says which fields differ.
    """
    chosen = job if isinstance(job, Job) else load_job(job)
    bundle = load_bundle(model)
    if dust is not None:
        chosen = replace(chosen, dust="" if dust == "none" else dust)
    files = tuple(expand(inputs, announce))
    partners = tuple(expand(companions, announce)) if companions else ()
    _refuse_companions(partners)
    check_job(chosen, bundle)
    dust_map = open_dust_map() if chosen.dust else None
    beside = [InputFile(named(path), fingerprint(path)) for path in partners]
    if dust_map is not None:
        beside.append(InputFile(shown_path(dust_map.folder / FACTS), dust_map.hash))
    chunks = tuple(cut(files, chosen.chunk_rows))
    faults = _each(lambda path: _fault(path, bundle.vocabulary), files)
    identity = RunIdentity.of(
        chosen,
        bundle,
        _input_files(chunks),
        beside,
    )
    output = Path(output)
    refuse_output(output, identity)
    done, spoilt = survey(output, chunks, chosen, bundle)
    return Plan(
        job=chosen,
        bundle=bundle,
        inputs=files,
        companions=partners,
        output=output,
        identity=identity,
        chunks=chunks,
        done=done,
        spoilt=spoilt,
        faults=tuple(fault for fault in faults if fault is not None),
        dust_map=dust_map,
    )


def _refuse_companions(partners: Sequence[Path]) -> None:
    """Every chunk needs the companion: one that cannot be read is refused, not failed."""
    try:
        if partners:
            open_companion(partners, None)
    except InputError as error:
        refusal = Refusal(error.message)
        refusal.details, refusal.args = error.details, error.args
        raise refusal from None


def _fault(path: Path, vocabulary: Vocabulary) -> Failure | None:
    """Why a file cannot be read. Raises ReleaseError where it is of another release."""
    try:
        check_release(path, vocabulary)
    except InputError as error:
        return Failure.of_file(path, error)
    return None


def _input_files(chunks: Sequence[Chunk]) -> list[InputFile]:
    """Each file with its fingerprint and rows; every file has at least one chunk."""
    by_file: dict[Path, list[Chunk]] = {}
    for chunk in chunks:
        by_file.setdefault(chunk.file, []).append(chunk)
    return [
        InputFile(named(path), held[0].fingerprint, _total(held)) for path, held in by_file.items()
    ]


def refuse_output(output: Path, identity: RunIdentity) -> None:
    """Refuse an output that cannot be written, or that holds something else than this run.

    Raises
    ------
    Refusal
        It is no folder, cannot be written, or holds files that are not a run's.
    ResumeError
        It holds another run; every field that differs is named.
    """
    if output.exists() and not output.is_dir():
        raise Refusal("the output is not a folder", wanted="a folder, or a free name", where=output)
    place = nearest(output)
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        raise Refusal("the output cannot be written", where=place, todo="give another --output")
    if not output.exists():
        return
    if (output / RUN_FILE).exists():
        if differing := compare(read_identity(output), identity):
            raise ResumeError(
                "the output folder holds another run",
                found="\n    ".join(["", *differing]),
                where=output,
                todo="give another --output, or the same job, model and input as before",
            )
        return
    ours = {LOCK_FILE, STAGING, *FOLDERS}
    # A start that was killed early leaves a temporary file; the next one removes it.
    strangers = (path for path in output.iterdir() if not is_temporary(path))
    if others := sorted(path.name for path in strangers if path.name not in ours):
        raise ResumeError(
            "the output folder holds something that is no run of catalogproc",
            wanted="an empty folder, a free name, or the folder of the same run",
            found=", ".join(others[:5]) + (", …" if len(others) > 5 else ""),
            where=output,
            todo="give another --output",
        )


def survey(
    output: Path, chunks: Sequence[Chunk], job: Job, bundle: Bundle
) -> tuple[frozenset[str], frozenset[str]]:
    """Identifiers of the chunks with a valid receipt, and of those with one that is not."""
    prints = {chunk.id: chunk.fingerprint for chunk in chunks}
    held = [path for path in receipt_files(output) if path.stem in prints]

    def holds(path: Path) -> bool:
        try:
            receipt = read_receipt(path)
        except InputError:
            return False
        return is_valid(receipt, output, job.hash, bundle.hash, prints[path.stem])

    valid = _each(holds, held)
    done = frozenset(path.stem for path, good in zip(held, valid, strict=True) if good)
    return done, frozenset(path.stem for path in held) - done


def check(plan: Plan, where: Where) -> list[str]:
    """Try what :func:`catalogproc.cluster.run.run` will need, and write nothing.

    Returns
    -------
    list of str
        What was found to be in order, for the user.

    Raises
    ------
    Refusal
        Too little room on the disk, fewer GPUs than workers, no CUDA or no scheduler where
        one was named, a model that does not give the answers stored with it.
    """
    from catalogproc.network.predictor import Predictor

    lines = plan.lines(short=True)
    needed, free = refuse_disk(plan)
    lines.append(f"about {_bytes(needed)} to write, {_bytes(free)} free")
    if where.scheduler is None:
        lines.append(crew(where, len(plan.chunks), len(plan.todo)).line())
    else:
        with standing(where.scheduler) as client:
            count = len(client.scheduler_info(n_workers=-1)["workers"])
        lines.append(f"{_count(count, 'worker')} at {where.scheduler}")
    Predictor(plan.bundle).self_check()
    lines.append(f"model {plan.bundle.name} gives the answers that are stored with it")
    return lines


def refuse_disk(plan: Plan) -> tuple[int, int]:
    """Bytes that the remaining chunks will take, about, and bytes that are free.

    Raises Refusal where the second is less than the first.
    """
    # A file that does not tell its rows holds one star in some 2 kB, packed as it may be.
    guess = sum(
        chunk.rows if chunk.rows is not None else _size(chunk.file) // 2000 for chunk in plan.todo
    )
    needed = guess * BYTES_A_ROW
    place = nearest(plan.output)
    free = shutil.disk_usage(place).free
    if needed > free:
        raise Refusal(
            "too little room for the catalog",
            wanted=f"about {_bytes(needed)}",
            found=f"{_bytes(free)} free",
            where=place,
            todo="give an --output on a larger disk",
        )
    return needed, free


def _total(chunks: Sequence[Chunk]) -> int | None:
    counts = [chunk.rows for chunk in chunks]
    return None if None in counts else sum(count for count in counts if count is not None)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _each(function: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
    """The function of each item, in order; files are slow to open on a shared disk."""
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(function, items))


def _bytes(number: int) -> str:
    units = ("bytes", "KiB", "MiB", "GiB", "TiB")
    power = min((max(number, 1).bit_length() - 1) // 10, len(units) - 1)
    return f"{number / 1024**power:,.{min(power, 1)}f} {units[power]}"


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"
