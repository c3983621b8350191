"""Many files of one star share a chunk, and each of them is still accounted for."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.runs import Kit, stamps
from support.small_files import content, write_stars
from support.xp_files import real

from catalogproc.cluster.done_chunks import chunk_states, remove_leftovers
from catalogproc.cluster.plan import SHOWN, Plan, check
from catalogproc.cluster.run import run
from catalogproc.cluster.spec import ClusterConfig
from catalogproc.errors import VerifyError
from catalogproc.inference.engine import Engine
from catalogproc.inference.process_chunk import process_chunk
from catalogproc.readers.chunks import Chunk
from catalogproc.report.explain import explain
from catalogproc.rundir.manifest import open_run
from catalogproc.rundir.provenance import write_provenance
from catalogproc.rundir.receipts import iterate_receipts, receipt_files
from catalogproc.rundir.status import status
from catalogproc.rundir.summary import write_summary
from catalogproc.rundir.verify import verify

STARS = 32
JOB = "chunk_rows = 1000\npropagation = 'none'\n"


def stars(count: int = STARS) -> pa.Table:
    """Real stars with both bands, which every format can hold."""
    table = real(count + 50)
    both = [
        a is not None and b is not None
        for a, b in zip(
            *(table[f"{n}_coefficients"].to_pylist() for n in ("bp", "rp")), strict=True
        )
    ]
    return table.filter(pa.array(both)).slice(0, count)


def plan_of(kit: Kit, folder: Path, inputs: Any, cluster: ClusterConfig | None = None) -> Plan:
    job = folder / "job.toml"
    job.write_text(f"kind = 'run'\ndescription = 'small files'\n{JOB}")
    more = {} if cluster is None else {"cluster": cluster}
    return kit.plan(folder / "out", **more, input=inputs, gaia_source=(), job=job)


def catalog(output: Path) -> pa.Table:
    parts = [pq.read_table(path) for path in sorted((output / "catalog").glob("*.parquet"))]
    return pa.concat_tables(part.replace_schema_metadata() for part in parts).sort_by("source_id")


def test_a_plan_of_many_small_files_is_short(kit: Kit, tmp_path: Path) -> None:
    files = write_stars(tmp_path / "xp", stars())
    plan = plan_of(kit, tmp_path, tmp_path / "xp")
    (chunk,) = plan.chunks
    assert [piece.file for piece in chunk.pieces] == files
    assert plan.lines()[0] == f"{STARS} files of spectra, in 1 chunk; 0 done, 1 to do"
    assert plan.lines()[-1] == f"to do  {chunk.id}  {files[0]} and {STARS - 1} more files  all rows"
    (listed,) = plan.to_dict()["chunks"]
    assert [one["file"] for one in listed["files"]] == [str(path) for path in files]
    assert len(check(plan)) < 10
    # A file of another size is a chunk of its own, as it would be without them.
    table = real()
    whole = tmp_path / "whole.parquet"
    pq.write_table(table.slice(STARS + 50, 500), whole, row_group_size=100)
    both = plan_of(kit, tmp_path, [tmp_path / "xp", whole])
    assert [len(one.pieces) for one in both.chunks] == [STARS, 1]
    assert both.chunks[1] == plan_of(kit, tmp_path, whole).chunks[0]


def test_many_files_that_cannot_be_read_are_counted(kit: Kit, tmp_path: Path) -> None:
    files = write_stars(tmp_path / "xp", stars(20))
    for number, path in enumerate(files[:15]):
        path.write_bytes(b"garbage %d" % number)
    plan = plan_of(kit, tmp_path, tmp_path / "xp")
    assert len(plan.faults) == 15
    assert [len(chunk.pieces) for chunk in plan.chunks] == [1] * 15 + [5]
    lines = plan.lines(short=True)
    assert sum("cannot be read and will fail" in line for line in lines) == SHOWN
    assert lines[-1] == "and 5 more files that will fail"
    assert "and 5 more lines about single files" in check(plan)


def test_files_that_fail_in_a_group_fail_alone_and_the_run_resumes(
    kit: Kit, existing_cluster: ClusterConfig, tmp_path: Path
) -> None:
    table, output = stars(), tmp_path / "out"
    files = write_stars(tmp_path / "xp", table)
    plan = plan_of(kit, tmp_path, tmp_path / "xp", existing_cluster)
    vanished, emptied, swapped = files[3], files[14], files[25]
    kept = {path: path.read_bytes() for path in (vanished, emptied, swapped)}
    vanished.unlink()
    emptied.write_bytes(b"")
    swapped.write_bytes(content(real(100).slice(99, 1), swapped.suffix[1:]))
    result = run(plan)
    assert result.exit_code == 1
    assert {failure.file for failure in result.failures} == {str(path) for path in kept}
    assert (result.rows_written, result.rows_read) == (STARS - 3, STARS - 3)
    assert (result.unfinished, result.chunks - result.chunks_done) == (0, 3)
    summary = json.loads((output / "summary.json").read_text())
    assert {one["file"] for one in summary["failures"]} == {str(path) for path in kept}
    with pytest.raises(VerifyError, match="3 findings") as caught:
        verify(output)
    assert all(f"{path.name}: no chunk of it is done" in str(caught.value) for path in kept)
    before = stamps(output)
    for path, whole in kept.items():
        path.write_bytes(whole)
    result = run(plan_of(kit, tmp_path, tmp_path / "xp", existing_cluster))
    assert (result.exit_code, result.rows_run, result.rows_written) == (0, 3, STARS)
    after = stamps(output)
    assert {name: after[name] for name in before} == before  # nothing is written again
    assert verify(output).rows_written == STARS
    again = run(plan_of(kit, tmp_path, tmp_path / "xp", existing_cluster))
    assert (again.chunks_run, again.exit_code) == (0, 0)
    assert catalog(output)["source_id"].to_pylist() == sorted(table["source_id"].to_pylist())


# --- without a cluster: the chunks of a plan, processed in this process -----------------


def processed(plan: Plan, chunks: list[Chunk]) -> None:
    open_run(plan.output, plan.identity)
    engine = Engine(plan.bundle, plan.job, run_id=plan.identity.run_id)
    for chunk in chunks:
        process_chunk(engine, chunk, None, plan.output)
    write_summary(plan.output)
    write_provenance(plan.output)


@pytest.fixture(scope="module")
def finished(kit: Kit, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A finished run of one chunk of 32 files, two of which have a star in common."""
    folder = tmp_path_factory.mktemp("finished")
    table = pa.concat_tables([stars(STARS - 1), stars().slice(4, 1)])
    write_stars(folder / "xp", table)
    plan = plan_of(kit, folder, folder / "xp")
    processed(plan, list(plan.chunks))
    return plan


def test_a_finished_group_is_verified_file_by_file(finished: Plan) -> None:
    report = verify(finished.output)
    assert (report.chunks, report.rows_written, report.repeated) == (1, STARS, 1)
    assert not finished.with_receipts().todo
    assert status(finished.output).rows_read == STARS


def test_a_star_of_a_group_is_explained_from_its_own_file(kit: Kit, finished: Plan) -> None:
    for number in (0, 9, 30):
        file = finished.inputs[number]
        star = explain(
            finished.output, stars()["source_id"][number].as_py(), model=finished.bundle.path
        )
        assert (star.file, star.row_number, star.duplicates) == (file, 0, 0)
    twice = explain(finished.output, stars()["source_id"][4].as_py(), model=finished.bundle.path)
    assert (twice.file, twice.duplicates) == (finished.inputs[4], 1)


def test_provenance_names_each_file_of_a_group(finished: Plan) -> None:
    content = json.loads((finished.output / "provenance.json").read_text())
    marks = {file.fingerprint for file in finished.identity.inputs}
    found = {
        name: entity["cp:fingerprint"]
        for name, entity in content["entity"].items()
        if name.startswith("run:input-")
    }
    assert set(found.values()) == marks
    assert len(marks) == STARS
    chunk = f"run:chunk-{finished.chunks[0].id}"
    used = {one["prov:entity"] for one in content["used"].values() if one["prov:activity"] == chunk}
    assert set(found) == used - {"run:model"}


def test_a_part_whose_rows_are_of_other_files_than_its_receipt_says_is_found(
    finished: Plan, kit: Kit, tmp_path: Path
) -> None:
    table = stars(6)
    write_stars(tmp_path / "xp", table)
    plan = plan_of(kit, tmp_path, tmp_path / "xp")
    processed(plan, list(plan.chunks))
    (path,) = receipt_files(plan.output)
    receipt = json.loads(path.read_text())
    receipt["files"][1]["rows_read"] += 1
    receipt["files"][2]["rows_read"] -= 1
    path.write_text(json.dumps(receipt))
    with pytest.raises(VerifyError, match="rows have receipts, it has 1"):
        verify(plan.output)


def test_files_done_one_by_one_are_done(kit: Kit, tmp_path: Path) -> None:
    """As in a run that was begun before small files shared chunks."""
    write_stars(tmp_path / "xp", stars(8))
    plan = plan_of(kit, tmp_path, tmp_path / "xp")
    (group,) = plan.chunks
    singles = [Chunk((piece,)) for piece in group.pieces]
    processed(plan, singles[:3])
    now = plan.with_receipts()
    assert now.chunks == tuple(singles)
    assert [chunk.id for chunk in now.todo] == [chunk.id for chunk in singles[3:]]
    processed(plan, singles[3:])
    assert not plan.with_receipts().todo
    assert verify(plan.output).chunks == 8


def test_halves_of_a_chunk_are_done(kit: Kit, tmp_path: Path) -> None:
    """As where memory did not suffice for the chunk; what remains is found by the receipts."""
    pq.write_table(real().slice(0, 400), tmp_path / "xp.parquet", row_group_size=150)
    plan = plan_of(kit, tmp_path, tmp_path / "xp.parquet")
    (chunk,) = plan.chunks
    first, second = chunk.halved(64)
    quarters = second.halved(64)
    assert [(one.pieces[0].first_row, one.rows) for one in (first, *quarters)] == [
        (0, 200), (200, 100), (300, 100),
    ]  # fmt: skip
    processed(plan, [quarters[0]])
    now = plan.with_receipts()
    assert [(one.pieces[0].first_row, one.rows) for one in now.chunks] == [
        (0, 200), (200, 100), (300, 100),
    ]  # fmt: skip
    assert now.done == {quarters[0].id}
    assert [one.id for one in now.todo] == [first.id, quarters[1].id]
    # In the same start they are listed as they were divided, whether they are done or not.
    listed = plan.with_receipts({chunk.id, second.id})
    assert [one.id for one in listed.chunks] == [first.id, *(one.id for one in quarters)]
    processed(plan, list(now.todo))
    assert not plan.with_receipts().todo
    assert verify(plan.output).rows_written + verify(plan.output).rows_rejected == 400
    # The whole chunk, by a worker that was believed dead, counts in place of its parts.
    processed(plan, [chunk])
    assert plan.with_receipts().done == {chunk.id}
    remove_leftovers(plan.output, plan.with_receipts().chunks)
    assert [receipt.chunk_id for receipt in iterate_receipts(plan.output)] == [chunk.id]


def test_a_group_finished_twice_in_different_chunks_is_counted_once(
    kit: Kit, tmp_path: Path
) -> None:
    """A worker believed dead finishes the whole group after its halves were processed."""
    write_stars(tmp_path / "xp", stars(8))
    plan = plan_of(kit, tmp_path, tmp_path / "xp")
    (group,) = plan.chunks
    processed(plan, [*group.divided(), group])
    states = chunk_states(plan.output, plan.identity, plan.chunks, {group.id})
    assert (states.chunks, states.done) == ((group,), {group.id})
    remove_leftovers(plan.output, states.chunks)
    assert [receipt.chunk_id for receipt in iterate_receipts(plan.output)] == [group.id]
    write_summary(plan.output)
    write_provenance(plan.output)
    assert verify(plan.output).rows_written == 8


def test_a_group_gives_the_numbers_of_its_stars_in_one_file(finished: Plan, kit: Kit) -> None:
    engine = Engine(finished.bundle, finished.job, run_id=finished.identity.run_id)
    whole = engine.process(stars(STARS - 1).combine_chunks().to_batches()[0])
    (part,) = (finished.output / "catalog").glob("*.parquet")
    found = pq.read_table(part).slice(0, STARS - 1)
    assert found["source_id"].to_pylist() == whole["source_id"].to_pylist()
    for name in ("teff", "mass", "log_age"):
        ours, theirs = (np.asarray(side[name], dtype=float) for side in (found, whole))
        sigma = np.asarray(whole[f"e_{name}"], dtype=float)
        assert (np.abs(ours - theirs) <= 1e-3 * sigma).all()


@pytest.mark.slow
def test_three_hundred_files_take_at_most_half_more_time_than_one(tmp_path: Path) -> None:
    """Processor time of the whole command, the smaller of two: other programs slow it too."""
    table = stars(300)
    write_stars(tmp_path / "many", table)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "all.csv").write_bytes(content(table, "csv"))

    def seconds(folder: str, number: int) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        output = tmp_path / f"{folder}-out-{number}"
        words = ["--input", str(tmp_path / folder), "--output", str(output)]
        subprocess.run(
            [sys.executable, "-m", "catalogproc", "run", *words, "--device", "cpu"],
            check=True,
            capture_output=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    many, one = (min(seconds(folder, k) for k in range(2)) for folder in ("many", "one"))
    assert many <= 1.5 * one
    assert len(receipt_files(tmp_path / "many-out-0")) == 1
