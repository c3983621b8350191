"""Several processes train the same network as one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.paths import ROOT

from catalogproc.errors import JobError
from catalogproc.network.packed_tokens import PackedTokens
from catalogproc.training.distributed import ProcessGroup, launch
from catalogproc.training.token_sampling import TokenBatch

JOB = """\
kind = "train"
bundle = "shared"
[network]
width = 16
encoder = [[2, 32]]
decoder = [[2, 32]]
head = [32]
dropout = 0.0
[simulation]
seed = 7
statistics_stars = 1000
test_stars = 64
calibration_stars = 64
[training]
seed = 3
steps = 6
batch = 64
rate = 1e-3
restart_steps = 6
clip = 1.0
average = 0.9
targets = 4
report_steps = 2
checkpoint_steps = 2
"""


def train(folder: Path, name: str, *options: str) -> tuple[str, dict[str, torch.Tensor]]:
    job = folder / "job.toml"
    job.write_text(JOB)
    command = [sys.executable, "-m", "catalogproc", "train", "--job", str(job), "--device", "cpu",
               "--output", str(folder / name), *options]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, load_file(folder / name / "checkpoint.safetensors")


def test_two_processes_give_the_weights_of_one(tmp_path: Path) -> None:
    _, one = train(tmp_path, "one")
    output, two = train(tmp_path, "two", "--processes", "2")
    assert one.keys() == two.keys()
    for name, value in one.items():
        if name.startswith(("network/", "average/")):
            torch.testing.assert_close(two[name], value, rtol=1e-3, atol=2e-5, msg=name)
    # Files and messages are written once.
    assert output.count("written to") == 1
    curves = [(tmp_path / name / "learning_curve.csv").read_text() for name in ("one", "two")]
    lines = [[line.split(",")[:2] for line in curve.splitlines()[1:]] for curve in curves]
    assert [step for step, _ in lines[0]] == [step for step, _ in lines[1]] == ["2", "4", "6"]
    for (_, a), (_, b) in zip(*lines, strict=True):
        assert float(b) == pytest.approx(float(a), rel=1e-4)


# Registered first, so that it is called last at exit: it prints which threads are left.
LEAVE = """\
import atexit, os
def name(task):
    try:
        return open(f"/proc/self/task/{task}/comm").read().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""  # it ended after it was listed
def threads():
    names = [name(task) for task in os.listdir("/proc/self/task")]
    line = f"left {os.environ['RANK']} {sorted(name for name in names if 'gloo' in name)}"
    os.write(1, (line + chr(10)).encode())  # in one piece: two processes write here
atexit.register(threads)
import torch
from catalogproc.training.distributed import ProcessGroup
group = ProcessGroup.join(torch.device("cpu"))
layer = torch.nn.Linear(3, 3)
optimiser = torch.optim.AdamW(layer.parameters())
layer(torch.ones(2, 3)).sum().backward()
group.all_reduce([weight.grad for weight in layer.parameters()])
optimiser.step()
threads()
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are read in /proc")
def test_no_thread_of_the_group_outlives_the_interpreter(tmp_path: Path) -> None:
    # A thread that did would request the lock of a finished interpreter, which aborts the process.
    script = tmp_path / "leave.py"
    script.write_text(LEAVE)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*torchrun, "--nproc-per-node", "2", str(script)],
                          capture_output=True, text=True, timeout=280, env=environment)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in "01":
        lines = [line for line in done.stdout.splitlines() if line.startswith(f"left {rank} ")]
        assert len(lines) == 2
        assert "gloo" in lines[0]
        assert lines[1] == f"left {rank} []"


def test_shards_divide_all_stars_of_a_step() -> None:
    rows = torch.arange(10)[:, None]
    batch = TokenBatch(PackedTokens(rows, rows.float()), rows, rows.float(), rows.float(), rows > 3)
    parts = [ProcessGroup(rank, 3).shard(batch) for rank in range(3)]
    assert sorted(torch.cat([part.shown.ids for part in parts]).flatten().tolist()) == list(
        range(10)
    )
    assert sum(int(part.requested.sum()) for part in parts) == int(batch.requested.sum())
    assert ProcessGroup().shard(batch) is batch


def test_one_process_is_refused_as_several() -> None:
    with pytest.raises(JobError, match=r"2 or more(.|\n)*1"):
        launch(1, [])
