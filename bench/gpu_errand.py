"""`make gpu`: everything that needs a GPU, in minutes, on a machine without network.

The machine has Python with torch, this checkout, and the folder that `make gpu-pack` made. Each
step is a process with a time limit. What a step finds is on the disk when it ends: a machine that
is taken away early loses only the rest. This module uses the standard library alone.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WHOLE = 530.0
"""Seconds of all steps together: the training takes what the others leave, up to TRAINING."""
TRAINING = 360.0
CLOSING = 20.0
"""Seconds from the training's end until it is stopped: for its last checkpoint."""
TAIL = 2000
"""Characters of a step's output that are among its results."""


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes
    ----------
    name
        Its name in the results.
    words
        Arguments of Python.
    limit
        Seconds after which it is stopped.
    """

    name: str
    words: tuple[str, ...]
    limit: float


@dataclass(frozen=True)
class Outcome:
    """How a step ended: "done", "failed" or "stopped at its limit", and the end of its output."""

    name: str
    ended: str
    code: int
    seconds: float
    limit: float
    output: str


def checks(out: Path, tiny: bool) -> list[Step]:
    """Return the steps before the training: tests, rows of the bench, workers on the device.

    Parameters
    ----------
    out
        Where results are written.
    tiny
        Very small sizes, to test the steps themselves.
    """
    pytest = ("-m", "pytest", "tests/gpu", "-q", "-p", "no:cacheprovider")
    # Other versions of libraries may warn of other things.
    pytest += ("-o", "filterwarnings=default", "-o", "timeout=50")
    size = ("--tiny",) if tiny else ("--brief",)
    bench = ("-m", "bench", "--rows", "gpu", *size)
    return [
        Step("tests", pytest, 60.0),
        Step("rows, full size", (*bench, "--json", str(out / "rows-full.json")), 70.0),
        Step(
            "rows, the model that ships",
            (*bench, "--model", "default", "--json", str(out / "rows-default.json")),
            50.0,
        ),
        Step("workers", ("-m", "bench.gpu_workers", "--json", str(out / "workers.json")), 50.0),
    ]


def training(out: Path, pack: Path, seconds: float, tiny: bool) -> Step:
    """Return the training.

    Parameters
    ----------
    out, pack
        Where results are written, and the folder that `make gpu-pack` made.
    seconds
        Time that it may take.
    tiny
        A very small network.
    """
    words = ("-m", "bench.gpu_training", "--out", str(out), "--data", str(pack / "data"))
    words += ("--until", str(time.time() + seconds - CLOSING), *(("--tiny",) if tiny else ()))
    return Step("training", words, seconds)


def run_steps(
    steps: Sequence[Step], out: Path, name: str, environment: Mapping[str, str]
) -> list[Outcome]:
    """Do steps one after the other, and write results after each.

    Parameters
    ----------
    steps
        The steps.
    out
        Gets NAME.json with the outcomes and NAME.log with all output.
    name
        Of these two files.
    environment
        Environment of the processes.
    """
    outcomes: list[Outcome] = []
    for step in steps:
        outcomes.append(run_step(step, out / f"{name}.log", environment))
        print(f"{step.name}: {outcomes[-1].ended}, {outcomes[-1].seconds:.0f} s", flush=True)
        text = json.dumps([asdict(outcome) for outcome in outcomes], indent=1)
        part = out / f".{name}.json"
        part.write_text(text + "\n", encoding="utf-8")
        part.replace(out / f"{name}.json")
    return outcomes


def run_step(step: Step, log: Path, environment: Mapping[str, str]) -> Outcome:
    """Do a step, and stop it with all processes that it started when its time is over.

    Parameters
    ----------
    step
        The step.
    log
        File that its output is appended to.
    environment
        Environment of the process.
    """
    began = time.monotonic()
    with log.open("ab") as file:
        file.write(f"== {step.name}\n".encode())
        file.flush()
        start = file.tell()
        process = subprocess.Popen(
            [sys.executable, *step.words], cwd=ROOT, env=dict(environment), stdout=file,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(step.limit)
            ended = "failed" if code else "done"
        except subprocess.TimeoutExpired:
            ended = "stopped at its limit"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
    output = log.read_bytes()[start:].decode(errors="replace")[-TAIL:]
    return Outcome(step.name, ended, code, time.monotonic() - began, step.limit, output)


def install(pack: Path, folder: Path) -> list[str]:
    """Install those wheels that this Python lacks into a folder, and return their names.

    Parameters
    ----------
    pack
        Folder that `make gpu-pack` made.
    folder
        Where they are installed.
    """
    missing = []
    for wheel in sorted((pack / "wheels").glob("*.whl")):
        try:
            importlib.metadata.version(wheel.name.split("-")[0])
        except importlib.metadata.PackageNotFoundError:
            missing.append(str(wheel))
    if missing:
        words = ["--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--quiet"]
        subprocess.run(
            [sys.executable, "-m", "pip", "install", *words, "--target", str(folder), *missing],
            check=True,
        )
    return [Path(path).name for path in missing]


def main() -> None:
    began = time.monotonic()
    parser = argparse.ArgumentParser(prog="make gpu", description=__doc__)
    parser.add_argument("--step", choices=("run", "train", "all"), default="all")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--pack", type=Path, required=True, help="folder of make gpu-pack")
    parser.add_argument("--seconds", type=float, default=TRAINING, help="of the training at most")
    parser.add_argument("--tiny", action="store_true", help="a hundredth of the size, for tests")
    options = parser.parse_args()
    out, pack = options.out.resolve(), options.pack.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu-") as site:
        print("installed:", ", ".join(install(pack, Path(site))) or "nothing", flush=True)
        found = os.environ.get("PYTHONPATH", "")
        environment = dict(os.environ) | {
            "PYTHONPATH": os.pathsep.join(path for path in (str(ROOT), site, found) if path),
            "PYTHONUNBUFFERED": "1",
        }
        outcomes = []
        if options.step != "train":
            outcomes += run_steps(checks(out, options.tiny), out, "run", environment)
        if options.step != "run":
            left = min(options.seconds, WHOLE - (time.monotonic() - began))
            step = training(out, pack, left, options.tiny)
            outcomes += run_steps([step], out, "train", environment)
    raise SystemExit(any(outcome.ended != "done" for outcome in outcomes))


if __name__ == "__main__":
    main()
