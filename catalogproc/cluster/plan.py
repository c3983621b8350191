"""Plan a run: its chunks, and which of them are done. Nothing here writes a file."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogproc.cluster.auxiliary_check import (
    column_lines,
    columns_of,
    has_own_columns,
    matched_lines,
)
from catalogproc.cluster.dask_cluster import connect, fit_workers, refuse_temporary_directory
from catalogproc.cluster.disk_space import refuse_disk
from catalogproc.cluster.done_chunks import chunk_states
from catalogproc.cluster.input_check import input_lines
from catalogproc.cluster.parallel import map_parallel
from catalogproc.cluster.remote_input import looked_at
from catalogproc.cluster.result import Failure, files_in, row_range
from catalogproc.cluster.spec import RunSpec
from catalogproc.errors import InputError, Refusal, ResumeError, plural
from catalogproc.features.bridge import load_bridged
from catalogproc.features.dust_map import FACTS, open_dust_map
from catalogproc.features.photometry import passbands
from catalogproc.features.tokens import reads_parallax
from catalogproc.inference.engine import check_job
from catalogproc.io.free_space import format_bytes
from catalogproc.io.output import check_output_folder
from catalogproc.io.remote_file import File
from catalogproc.io.staging import named
from catalogproc.io.temporary_files import is_temporary
from catalogproc.job import Job, load_job
from catalogproc.network.bundle import Bundle, load_bundle
from catalogproc.readers.auxiliary_columns import AuxiliaryColumns
from catalogproc.readers.chunks import Chunk, cut, expand, fingerprint
from catalogproc.readers.gaia_source import open_auxiliary
from catalogproc.readers.pieces import Piece
from catalogproc.readers.release_check import check_release
from catalogproc.rundir.manifest import (
    FOLDERS,
    LOCK_FILE,
    RUN_FILE,
    InputFile,
    RunIdentity,
    check_same_run,
    shown_path,
)

if TYPE_CHECKING:
    from catalogproc.features.dust_map import DustMap
    from catalogproc.release import Release
    from catalogproc.vocabulary import Vocabulary

STAGING = ".auxiliary"
SHOWN = 10
"""Number of files that cannot be read, and of files of a chunk, that are listed one by one."""


@dataclass(frozen=True)
class Plan:
    """A run before it starts.

    Attributes
    ----------
    spec
        What the user asked for.
    job, bundle
        The job and the model.
    inputs, gaia_source
        The files that ``spec`` names.
    output
        The local output folder.
    identity
        What decides whether an output folder holds this run.
    chunks
        All chunks, in the order of the files and of their rows.
    done
        Identifiers of the chunks with a valid receipt.
    invalid
        Identifiers of the chunks with an invalid receipt; they are processed again.
    faults
        Files that cannot be read; each is a chunk that will fail.
    dust_map
        The staged map that the job reads, if it reads one.
    auxiliary_columns
        Which columns of the gaia_source tables are used.
    """

    spec: RunSpec
    job: Job
    bundle: Bundle
    inputs: tuple[File, ...]
    gaia_source: tuple[File, ...]
    output: Path
    identity: RunIdentity
    chunks: tuple[Chunk, ...]
    done: frozenset[str]
    invalid: frozenset[str]
    faults: tuple[Failure, ...]
    dust_map: DustMap | None = None
    auxiliary_columns: tuple[AuxiliaryColumns, ...] = ()

    @cached_property
    def todo(self) -> tuple[Chunk, ...]:
        """The chunks that remain to be processed."""
        return tuple(chunk for chunk in self.chunks if chunk.id not in self.done)

    @cached_property
    def rows_todo(self) -> int | None:
        """Number of rows in these; None if a file does not state its number."""
        return _total(self.todo)

    def with_receipts(self, divided: Container[str] = ()) -> Plan:
        """Return the same plan with the receipts as they are now.

        Parameters
        ----------
        divided
            Identifiers of the chunks that were divided into their files.
        """
        states = chunk_states(self.output, self.identity, self.chunks, divided)
        return replace(self, **vars(states))

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON can hold it: the run, and each chunk with its state."""
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
                    "chunk": chunk.id, "rows": chunk.rows,
                    "files": [
                        {"file": str(one.file), "first_row": one.first_row, "rows": one.rows}
                        for one in chunk.pieces
                    ],
                    "done": chunk.id in self.done, "invalid": chunk.id in self.invalid,
                }
                for chunk in self.chunks
            ],
            "faults": [{"file": fault.file, "cause": fault.cause} for fault in self.faults],
        }  # fmt: skip

    def lines(self, *, short: bool = False) -> list[str]:
        """Return the plan for the user.

        Parameters
        ----------
        short
            Leave out the line of each chunk.
        """
        rows = _total(self.chunks)
        model = f"{self.bundle.name} ({self.bundle.hash[:8]})"
        lines = [
            f"{plural(len(self.inputs), 'file')} of spectra"
            + (f", {plural(rows, 'star')}" if rows is not None else "")
            + f", in {plural(len(self.chunks), 'chunk')}; "
            f"{len(self.done):,} done, {len(self.todo):,} to do",
            f"job {self.job.name} ({self.job.hash[:8]}), model {model}, run {self.identity.run_id}",
        ]
        if reads_parallax(self.job):
            lines.append(
                "the model reads parallaxes; luminosity and distance are predicted without them"
            )
        if self.invalid:
            lines.append(
                f"{plural(len(self.invalid), 'invalid receipt')}: the receipt or its part was "
                "changed, and the chunk is processed again"
            )
        for fault in self.faults[:SHOWN]:
            lines += ["cannot be read and will fail:", *fault.lines()]
        if len(self.faults) > SHOWN:
            lines.append(f"and {len(self.faults) - SHOWN:,} more files that will fail")
        for columns in self.auxiliary_columns:
            lines += columns.lines()
        if not short:
            lines += [self._line(chunk) for chunk in self.chunks]
        return lines

    def auxiliary_lines(self) -> list[str]:
        """Return which auxiliary columns the first stars have, and which none. Raises Refusal."""
        release, columns = self.bundle.release, self.auxiliary_columns
        tables = open_auxiliary(self.gaia_source, None, release)
        return [
            *column_lines(self.inputs, columns, release),
            *matched_lines(self.inputs, tables, columns, strict=self.spec.strict),
        ]

    def _line(self, chunk: Chunk) -> str:
        state = "done" if chunk.id in self.done else "to do"
        return f"{state:5}  {chunk.id}  {files_in(chunk)}  {row_range(chunk)}"


def make_plan(spec: RunSpec, announce: Callable[[str], None] | None = None) -> Plan:
    """Read what the user asked for, and refuse what can be refused before anything starts.

    Parameters
    ----------
    spec
        What the user asked for, with a local output folder.
    announce
        Called with a line about files at an address.

    Raises
    ------
    Refusal
        Also by its subclasses: nothing matches the input, no such job or model, a gaia_source
        table that cannot be read, spectra of a release that the model does not read, two files
        with the same content, a dust map that is not staged, no file of the input that can be
        read, an output that cannot be written or that holds something else.
    ResumeError
        The output holds a different run; the error lists the fields that differ.
    """
    job = _job_of(spec)
    bundle = load_bundle(spec.model).for_release(_release_of(spec))
    files = tuple(expand(spec.input_paths, announce))
    gaia_source = tuple(expand(spec.gaia_source_paths, announce)) if spec.gaia_source else ()
    columns = columns_of(gaia_source, bundle.release)
    check_job(job, bundle)
    dust_map = open_dust_map() if job.dust else None
    joined = [InputFile(named(path), fingerprint(path, now=False)) for path in gaia_source]
    if dust_map is not None:
        joined.append(InputFile(shown_path(dust_map.folder / FACTS), dust_map.hash))
    read = set(looked_at(files))
    found = map_parallel(lambda path: _fault(path, bundle.vocabulary, path in read), files)
    faults = {path: fault for path, fault in zip(files, found, strict=True) if fault is not None}
    if len(faults) == len(files):
        raise _all_unreadable(tuple(faults.values()))
    chunks = cut(files, job.chunk_rows, faults)
    if not gaia_source and not has_own_columns(files, bundle.release):
        passbands(bundle.vocabulary.basis_release)  # G, BP and RP are made of the spectra
    identity = RunIdentity.of(job, bundle, _input_files(chunks), joined)
    output = Path(spec.output)
    refuse_output(output, identity)
    return Plan(
        spec=spec,
        job=job,
        bundle=bundle,
        inputs=files,
        gaia_source=gaia_source,
        auxiliary_columns=columns,
        output=output,
        identity=identity,
        faults=tuple(faults.values()),
        **vars(chunk_states(output, identity, chunks)),
        dust_map=dust_map,
    )


def _release_of(spec: RunSpec) -> Release | str | Path | None:
    return spec.release if spec.bridge is None else load_bridged(spec.bridge, spec.release)


def _job_of(spec: RunSpec) -> Job:
    job = spec.job if isinstance(spec.job, Job) else load_job(spec.job)
    if spec.posterior is not None:
        job = replace(job, posterior=spec.posterior)
    if spec.dust is None:
        return job
    return replace(job, dust="" if spec.dust == "none" else spec.dust)


def _fault(path: File, vocabulary: Vocabulary, rows: bool) -> Failure | None:
    """Return why a file cannot be read. Raise ReleaseError if it is of another release.

    Without ``rows`` only what the head of the file states is looked at.
    """
    try:
        check_release(path, vocabulary, rows=rows)
    except InputError as error:
        return Failure.of_file(path, error)
    return None


def _all_unreadable(faults: Sequence[Failure]) -> Refusal:
    """Return the error of an input of which no file can be read."""
    if len(faults) == 1:
        return Refusal(faults[0].cause, advice=faults[0].advice)
    causes = (f"{fault.file}: {fault.cause.splitlines()[0]}" for fault in faults)
    listed = [*islice(causes, SHOWN), *(["…"] if len(faults) > SHOWN else [])]
    return Refusal(
        "no file of the input can be read",
        found="\n    ".join(["", *listed]),
        advice=faults[0].advice,
    )


def _input_files(chunks: Sequence[Chunk]) -> list[InputFile]:
    """Return each file with its fingerprint and rows; every file has at least one piece."""
    by_file: dict[File, list[Piece]] = {}
    for piece in (piece for chunk in chunks for piece in chunk.pieces):
        by_file.setdefault(piece.file, []).append(piece)
    return [
        InputFile(named(path), its_pieces[0].fingerprint, _total(its_pieces))
        for path, its_pieces in by_file.items()
    ]


def refuse_output(output: Path, identity: RunIdentity) -> None:
    """Refuse an output that cannot be written, or that holds anything but this run.

    Parameters
    ----------
    output
        The output folder. It need not exist.
    identity
        The run.

    Raises
    ------
    Refusal
        It is not a folder, or cannot be written.
    ResumeError
        It holds a different run, and the fields that differ are listed; or other files.
    """
    check_output_folder(output)
    if not output.exists():
        return
    if (output / RUN_FILE).exists():
        check_same_run(output, identity)
        return
    known = {LOCK_FILE, STAGING, *FOLDERS}
    # A start that was killed early leaves a temporary file; the next one removes it.
    files = (path for path in output.iterdir() if not is_temporary(path))
    if others := sorted(path.name for path in files if path.name not in known):
        raise ResumeError(
            "the output folder holds files that are not of a run of catalogproc",
            wanted="an empty folder, a new name, or the folder of the same run",
            found=", ".join(others[:5]) + (", …" if len(others) > 5 else ""),
            where=output,
            advice="give another --output",
        )


def check(plan: Plan) -> list[str]:
    """Test what :func:`catalogproc.cluster.run.run` will need, and write nothing.

    Parameters
    ----------
    plan
        From :func:`make_plan`.

    Returns
    -------
    list of str
        What was tested, for the user.

    Raises
    ------
    Refusal
        No star of the input would be in the catalog, too little disk space, fewer GPUs than
        workers, no CUDA or no scheduler although one was asked for, a temporary folder of Dask
        that cannot be written, a model that does not reproduce its stored predictions.
    """
    from catalogproc.network.predictor import Predictor

    lines = plan.lines(short=True)
    lines += input_lines(plan.inputs, plan.bundle.vocabulary)
    lines += plan.auxiliary_lines()
    needed, free = refuse_disk(plan.todo, plan.output)
    lines.append(f"about {format_bytes(needed)} to write, {format_bytes(free)} free")
    cluster = plan.spec.cluster
    if cluster.scheduler is None:
        refuse_temporary_directory()
        lines.append(fit_workers(cluster, len(plan.chunks), len(plan.todo)).line())
    else:
        with connect(cluster.scheduler) as client:
            count = len(client.scheduler_info(n_workers=-1)["workers"])
        lines.append(f"{plural(count, 'worker')} at {cluster.scheduler}")
    Predictor(plan.bundle).self_check()
    lines.append(f"model {plan.bundle.name} reproduces its stored predictions")
    return lines


def _total(items: Sequence[Chunk] | Sequence[Piece]) -> int | None:
    counts = [item.rows for item in items]
    return None if None in counts else sum(count for count in counts if count is not None)
