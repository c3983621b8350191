"""Job files: read strictly, hashed over everything that can change a number."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogproc.errors import JobError
from catalogproc.job import Job, load_job, load_training_job, shipped_jobs


def _write(folder: Path, text: str) -> Path:
    path = folder / "job.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_shipped_jobs_load() -> None:
    for name in shipped_jobs():
        load = load_training_job if name.startswith("train") else load_job
        job = load(name)
        assert job.name == name
        assert job.description


def test_hash_is_of_the_science_alone() -> None:
    job = load_job("gaia-dr3-giants")
    assert replace(job, name="x", description="y").hash == job.hash
    changed = [
        replace(job, labels=("teff",)),
        replace(job, inputs=()),
        replace(job, coefficients=5),
        replace(job, mask_irrelevant=False),
        replace(job, chunk_rows=7),
    ]
    assert len({job.hash, *(other.hash for other in changed)}) == len(changed) + 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('kind = "train"', 'wanted: kind = "run"'),
        ('kind = "run"\ncolour = 1', "unknown field of a job"),
        ('kind = "run"\ncoefficients = "30"', "wrong type"),
        ('kind = "run"\ncoefficients = true', "wrong type"),
        ('kind = "run"\ncoefficients = 0', "must be positive"),
        ('kind = "run"\nlabels = ["teff", "teff"]', "named twice"),
        ('kind = "run"\nlabels = ["teff", 1]', "wrong type"),
        ('kind = "run', "cannot be read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(JobError, match=message) as caught:
        load_job(_write(tmp_path, text))
    assert caught.value.exit_code == 2


def test_unknown_job_lists_the_shipped_ones() -> None:
    with pytest.raises(JobError, match="gaia-dr3-giants"):
        load_job("nonsense")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_refused_and_never_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("job") / "job.toml"
    path.write_bytes(content)
    with pytest.raises(JobError):
        load_job(path)


def test_defaults_are_the_shipped_job() -> None:
    assert Job("x").hash == load_job("gaia-dr3-giants").hash
