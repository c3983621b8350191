"""The errand for a GPU machine without network, on the CPU at a hundredth of the size."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
from support.paths import ROOT
from support.real_dataset import write_real_dataset

from bench import gpu, gpu_errand, gpu_pieces, gpu_workers
from bench.gpu_errand import Step, checks, run_steps
from bench.gpu_finish import Verdict, finish_model, judge
from bench.gpu_pack import ERROR_BITS, pack_dataset, shortened
from bench.gpu_page import TITLE, replace_section, section
from bench.gpu_pieces import MOST, SIZE, join_pieces, write_pieces
from bench.gpu_training import STAGES, Course, job_of, train
from catalogproc.cluster.gpu import CPU
from catalogproc.cluster.spec import ClusterConfig
from catalogproc.datasets.dataset import load_dataset
from catalogproc.errors import InputError
from catalogproc.network.shape import Shape
from catalogproc.network.transformer import Transformer
from catalogproc.training.train_bundle import settings_for

BACK, BYTES_BACK = 8, 16 * 2**20
"""Files that may come back from a call, and the size of each."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_real_dataset(tmp_path_factory.mktemp("data") / "giants", 400)


@pytest.fixture(scope="module")
def pack(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pack = tmp_path_factory.mktemp("pack")
    (pack / "wheels").mkdir()
    pack_dataset(data, pack / "data")
    return pack


# --- what travels -------------------------------------------------------------------------------
def test_the_compact_dataset_has_the_same_stars_and_values(data: Path, pack: Path) -> None:
    (whole, _), (packed, few) = (
        load_dataset(folder, mask_irrelevant=False) for folder in (data, pack / "data")
    )
    np.testing.assert_array_equal(packed.ids, whole.ids)
    np.testing.assert_array_equal(packed.values, whole.values)
    np.testing.assert_allclose(packed.errors, whole.errors, rtol=2.0**-ERROR_BITS)
    assert len(few.ids) == 16
    size = [(folder / "train.parquet").stat().st_size for folder in (data, pack / "data")]
    assert size[1] < size[0]


def test_rounded_numbers_are_the_nearest_ones_of_so_many_bits() -> None:
    last = 2.0**-ERROR_BITS
    values = np.float32([1.0, 1.0 + last, 1.0 + last / 4, -3.14159, 1e-30, np.nan, np.inf])
    found = shortened(values)
    assert found[0] == 1.0
    assert found[1] == 1.0 + last
    assert found[2] == 1.0
    np.testing.assert_allclose(found[3:], values[3:], rtol=last / 2)
    assert not (found[:5].view(np.uint32) & (2 ** (23 - ERROR_BITS) - 1)).any()


def test_what_is_packed_and_tracked_fits_into_one_call() -> None:
    """64 MiB for all: the files of this checkout leave room for data (20 MB) and wheels (22 MB)."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split("\0")  # fmt: skip
    sizes = [(ROOT / name).stat().st_size for name in tracked if (ROOT / name).is_file()]
    if not sizes:
        pytest.skip("not a checkout")
    assert sum(sizes) + 20e6 + 22e6 < 64 * 2**20


# --- what comes back ----------------------------------------------------------------------------
@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "weights").write_bytes(os.urandom(2500))
    (folder / "bundle.toml").write_text("name = 'x'\n")
    return folder


def test_pieces_joined_are_the_folder(folder: Path, tmp_path: Path) -> None:
    pieces = write_pieces(folder, tmp_path / "out", {"stage": "s"}, size=4000)
    assert all(path.stat().st_size <= 4000 for path in pieces)
    assert len(pieces) > 1
    assert join_pieces(tmp_path, tmp_path / "joined")["stage"] == "s"
    for path in folder.iterdir():
        assert (tmp_path / "joined" / path.name).read_bytes() == path.read_bytes()


def test_a_machine_taken_away_while_pieces_are_written_leaves_those_before(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write_pieces(folder, out, {}, size=4000)
    before = (folder / "weights").read_bytes()
    (folder / "weights").write_bytes(os.urandom(2500))
    written = gpu_pieces.write_atomic

    def taken_away(path: Path, content: bytes) -> None:
        if path.name.endswith("-1.part"):
            raise ConnectionError("taken away")
        written(path, content)

    monkeypatch.setattr(gpu_pieces, "write_atomic", taken_away)
    with pytest.raises(ConnectionError):
        write_pieces(folder, out, {}, size=4000)
    join_pieces(out, tmp_path / "joined")
    assert (tmp_path / "joined" / "weights").read_bytes() == before


def test_damaged_and_missing_pieces_are_named(folder: Path, tmp_path: Path) -> None:
    pieces = write_pieces(folder, tmp_path / "out", {}, size=4000)
    pieces[1].write_bytes(b"x" * pieces[1].stat().st_size)
    with pytest.raises(InputError, match="damaged"):
        join_pieces(tmp_path / "out", tmp_path / "joined")
    pieces[1].unlink()
    with pytest.raises(InputError, match="missing"):
        join_pieces(tmp_path / "out", tmp_path / "joined")
    with pytest.raises(InputError, match="does not fit"):
        write_pieces(folder, tmp_path / "more", {}, size=500)


def test_the_complete_network_fits_into_what_may_come_back() -> None:
    job = job_of(STAGES[0], 1.0, False)
    network = {name: x for name, x in job.network.items() if name not in ("mixture", "late")}
    shape = Shape.from_dict({"tokens": 122, **network, "mixture": [1], "late": [2]})
    weights = sum(x.numel() for x in Transformer(shape).parameters())
    assert weights > 8e6
    pieces = -(-(2 * weights + 400_000) // SIZE)
    assert SIZE < BYTES_BACK
    # Two sets, their list, results and log.
    assert 2 * pieces <= MOST
    assert 2 * pieces + 3 <= BACK


# --- steps --------------------------------------------------------------------------------------
def test_a_step_is_stopped_with_its_children_and_the_next_one_runs(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    child = f"import os,time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    slow = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    steps = [
        Step("slow", ("-c", slow), 2.0),
        Step("broken", ("-c", "raise SystemExit('no device')"), 20.0),
        Step("good", ("-c", "print('fine')"), 20.0),
    ]
    began = time.monotonic()
    outcomes = run_steps(steps, tmp_path, "run", os.environ)
    assert time.monotonic() - began < 20
    assert [one.ended for one in outcomes] == ["stopped at its limit", "failed", "done"]
    assert "no device" in outcomes[1].output
    assert json.loads((tmp_path / "run.json").read_text())[2]["output"] == "fine\n"
    assert b"== broken\nno device" in (tmp_path / "run.log").read_bytes()
    deadline = time.monotonic() + 5
    while psutil.pid_exists(int(pid.read_text())) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(int(pid.read_text()))


def test_all_limits_together_are_under_nine_minutes(tmp_path: Path) -> None:
    before = sum(step.limit for step in checks(tmp_path, False))
    assert before + 300 <= gpu_errand.WHOLE < 540
    # The training ends by itself before it is stopped, however long the libraries take to load.
    step = gpu_errand.training(tmp_path, tmp_path, 100.0, False)
    until = float(step.words[step.words.index("--until") + 1])
    assert 70 < until - time.time() < step.limit - 15
    # A machine without the libraries must be able to start it.
    words = "import sys, bench.gpu_errand; print({'numpy', 'torch'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_the_settings_of_the_stages_are_valid_and_end_with_the_clock() -> None:
    assert sum(stage.share for stage in STAGES) == pytest.approx(1.0)
    for stage in STAGES:
        settings = settings_for(job_of(stage, 100.0, False).training, 30_000)
        assert settings.seconds == 100.0
        assert settings.precision == "bfloat16"
        assert settings.rate_at(10**4, 1.0) == pytest.approx(1e-6)


# --- what becomes of it -------------------------------------------------------------------------
def test_the_page_says_what_was_not_measured(tmp_path: Path) -> None:
    text = section({})
    assert text.count("not measured") == 2 * len(gpu.ROWS) + 4 + len(STAGES)
    rows = [{"row": gpu.ROWS[0].name, "value": 123456.0}]
    full = {
        "rows": rows, "date": "2026-11-28T00:00", "versions": {"torch": "2.11"},
        "machine": {"gpu": "H100", "cores": 16},
    }  # fmt: skip
    now = {"job": "train-giants", "device": "H100", "steps": 9000, "batch": 2048,
           "stars_per_second": 1e5, "loss": 0.5, "validation_loss": 0.25}  # fmt: skip
    results = {
        "rows-full.json": full, "model.json": {"now": now, "stages": []},
        "run.json": [{"name": "tests", "ended": "done", "output": "9 passed\n"}],
        "workers.json": {"receipts name the GPU": {"passed": True, "found": {}}},
    }  # fmt: skip
    text = section(results)
    assert "2026-11-28, H100, 16 cores, torch 2.11" in text
    assert "123,456 stars/s" in text
    assert "| train-giants | 9,000 of 2,048 | 100,000 | 0.500 | 0.250 |" in text
    assert "| tests/gpu | done: 9 passed |" in text
    page = tmp_path / "page.md"
    page.write_text(f"# Speed\n\nbefore\n\n{TITLE}\n\nold\n\n## Next\n\nafter\n")
    replace_section(page, text)
    assert page.read_text() == f"# Speed\n\nbefore\n\n{text}\n## Next\n\nafter\n"
    page.write_text("# Another page\n")
    with pytest.raises(InputError, match="no section"):
        replace_section(page, text)


def test_the_page_of_this_checkout_has_the_section() -> None:
    assert f"\n{TITLE}\n" in (ROOT / "docs" / "performance.md").read_text()


def test_only_a_better_model_is_better() -> None:
    assert Verdict(0.98, 20, 20, ()).is_better
    assert not Verdict(1.001, 25, 20, ()).is_better
    assert not Verdict(0.9, 19, 20, ()).is_better


@pytest.mark.slow
def test_the_check_of_workers_runs_and_refuses_what_is_no_gpu(tmp_path: Path) -> None:
    cluster = ClusterConfig(device="cpu", workers=1, dashboard="127.0.0.1:0")
    passed, found = gpu_workers.receipts_of(tmp_path, cluster, (CPU,))
    assert not passed
    assert found["devices"] == ["cpu"]
    assert found["stars"] == 1500


@pytest.mark.slow
def test_training_finishing_and_judging_at_a_hundredth_of_the_size(
    data: Path, pack: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    course = Course(out, pack / "data", tmp_path / "work", "cpu", time.monotonic() + 60, tiny=True)
    made = train(course)
    assert [row["job"] for row in course.history] == [stage.job for stage in STAGES]
    assert len(list(out.iterdir())) <= BACK
    assert all(path.stat().st_size < BYTES_BACK for path in out.iterdir())
    bundle = finish_model(out, data, tmp_path / "model")
    assert bundle.training["from"].startswith("giants-real")
    assert bundle.training["dataset_sha256"] == made.training["dataset_sha256"]
    assert (bundle.path / "CARD.md").is_file()
    assert bundle.calibration.by_label or bundle.calibration.trained_on is not None
    verdict = judge(bundle, data, tmp_path / "pages")
    # Which one is better on these few stars is luck.
    assert 0 < verdict.ratio < math.inf
    assert "default" in "".join(verdict.lines)
    assert (tmp_path / "pages" / "new" / "real_giants.md").is_file()
    with pytest.raises(InputError):
        finish_model(tmp_path / "work", data, tmp_path / "other")
