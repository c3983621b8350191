"""The predictor and a run on one GPU."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median

import torch

from bench import arithmetic
from bench.kit import Kit
from bench.matrix import best, rates
from bench.measure import NO_GPU, Absent, Figures, Noted, Row, Target, seconds
from bench.run import command, job_file
from catalogproc.network.predictor import Predictor
from catalogproc.network.star_tokens import StarTokens

TITLE = "one GPU"
LABELS = 8
CHUNKS = 4
"""Chunks of the run: 50,000 stars each in the errand, as by default."""
ROWS = (
    Row("stars, 64 tokens, 8 labels", "stars/s", Target(1_000_000)),
    Row("the same, its passes not captured", "stars/s"),
    Row("the same in TF32", "stars/s"),
    Row("matrix products, bfloat16", "GFLOP/s"),
    Row("64 tokens, 8 labels, of the bfloat16 matrix rate", "%", Target(40)),
    Row("stars, 33 tokens, 7 labels", "stars/s"),
    Row("peak memory of the predictor", "GB"),
    Row("power, 64 tokens, 8 labels", "W"),
    Row("run, chunks only", "stars/s", Target(500_000)),
)


def measure(kit: Kit) -> Figures:
    if not torch.cuda.is_available():
        return {row.name: NO_GPU for row in ROWS}
    return on_device(kit, "cuda")


def on_device(kit: Kit, device: str) -> Figures:
    """Return the rows of a device, of the CPU to test this module.

    Parameters
    ----------
    kit
        Model and stars.
    device
        cuda or cpu.
    """
    n, requested = kit.sizes.gpu, labels(kit)
    full, few = (StarTokens.typical(table) for table in (kit.full(n), kit.full(n, 33)))
    full.values[:, kit.bundle.vocabulary.column("logebv")] = -2.0
    # The lowest precision that predictions may have.
    predictor = Predictor(kit.bundle, device, "bfloat16", static=True)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with power() as watts:
        whole = rate(kit, predictor, full, requested)
    memory = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    started = Predictor(kit.bundle, device, "bfloat16", static=False)
    tf32 = Predictor(kit.bundle, device, "tf32", static=True)
    products = best(
        rates(kit.bundle.shape, kit.sizes.repeats, kit.sizes.budget, device), "bfloat16"
    )
    operations = arithmetic.star(kit.bundle.shape, 64, len(requested))
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    figures = (
        Noted(whole, f"{name}, bfloat16"),
        rate(kit, started, full, requested),
        rate(kit, tf32, full, requested),
        products / 1e9,
        100 * operations * whole / products,
        rate(kit, predictor, few, kit.job.labels),
        memory / 1e9,
        median(watts) if watts else Absent("not measured: the driver does not tell"),
        run_rate(kit),
    )
    return {row.name: figure for row, figure in zip(ROWS, figures, strict=True)}


def labels(kit: Kit) -> list[str]:
    """Return the labels of the job, then coefficients that are not among the inputs."""
    every = dict.fromkeys([*kit.job.labels, *reversed(kit.bundle.requestable)])
    return [label for label in every if label in kit.bundle.requestable][:LABELS]


def rate(kit: Kit, predictor: Predictor, tokens: StarTokens, requested: Sequence[str]) -> float:
    """Return the stars per second of a predictor, its passes captured beforehand."""
    repeats, budget = kit.sizes.repeats, kit.sizes.budget / 2
    return len(tokens) / seconds(lambda: predictor.predict(tokens, requested), repeats, budget)


def run_rate(kit: Kit) -> float:
    """Return the stars per second of a run, without the start and the end of its cluster."""
    n, output = kit.sizes.gpu, kit.folder / "gpu"
    rows = max(1, n // CHUNKS)
    command(kit, [kit.spectra(n, rows)], output, job_file(kit, rows))
    summary = json.loads((output / "summary.json").read_text())
    shutil.rmtree(output)
    return float(n / summary["seconds"])


@contextmanager
def power(every: float = 0.5) -> Iterator[list[float]]:
    """Yield a list that gets the power of the first GPU in W; it stays empty if unknown.

    Parameters
    ----------
    every
        Seconds between readings.
    """
    watts: list[float] = []
    over = threading.Event()

    def read() -> None:
        words = ["nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits", "--id=0"]
        while not over.wait(every):
            try:
                done = subprocess.run(words, capture_output=True, text=True, timeout=5, check=True)
                watts.append(float(done.stdout.split()[0]))
            except (OSError, subprocess.SubprocessError, ValueError, IndexError):
                return

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield watts
    finally:
        over.set()
        thread.join()
