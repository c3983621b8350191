"""The predictor and a run on one GPU."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import torch

from bench import arithmetic
from bench.kit import Kit
from bench.matrix import best, rates
from bench.measure import NO_GPU, Absent, Figures, Noted, Row, Target, seconds
from bench.run import command, job_file
from catalogproc.network.predictor import PRECISIONS, Predictor
from catalogproc.network.star_tokens import StarTokens

TITLE = "one GPU"
LABELS = 8
ROWS = (
    Row("stars, 64 tokens, 8 labels", "stars/s", Target(1_000_000)),
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
    sizes, n = kit.sizes, kit.sizes.gpu
    # The lowest precision that predictions may have.
    precision = "bfloat16" if "bfloat16" in PRECISIONS else "float32"
    predictor = Predictor(kit.bundle, "cuda", precision)
    # The labels of the job, then coefficients that are not among the inputs.
    labels = [*kit.job.labels, *reversed(kit.bundle.requestable)]
    labels = list(dict.fromkeys(label for label in labels if label in kit.bundle.requestable))
    labels = labels[:LABELS]
    full = kit.full(n)
    full[:, kit.bundle.vocabulary.column("logebv")] = -2.0
    torch.cuda.reset_peak_memory_stats()
    with power() as watts:
        whole = n / seconds(
            lambda: predictor.predict(StarTokens.typical(full), labels), sizes.repeats, sizes.budget
        )
    memory = torch.cuda.max_memory_allocated()
    few, seven = kit.full(n, 33), kit.job.labels
    sparse = n / seconds(
        lambda: predictor.predict(StarTokens.typical(few), seven), sizes.repeats, sizes.budget
    )
    products = best(rates(kit.bundle.shape, sizes.repeats, sizes.budget, "cuda"), "bfloat16")
    rows = max(1, n // 32)
    output = kit.folder / "gpu"
    command(kit, [kit.spectra(n, rows)], output, job_file(kit, rows))
    summary = json.loads((output / "summary.json").read_text())
    shutil.rmtree(output)
    operations = arithmetic.star(kit.bundle.shape, 64, len(labels))
    return {
        "stars, 64 tokens, 8 labels": Noted(whole, f"{torch.cuda.get_device_name()}, {precision}"),
        "matrix products, bfloat16": products / 1e9,
        "64 tokens, 8 labels, of the bfloat16 matrix rate": 100 * operations * whole / products,
        "stars, 33 tokens, 7 labels": sparse,
        "peak memory of the predictor": memory / 1e9,
        "power, 64 tokens, 8 labels": median(watts)
        if watts
        else Absent("not measured: the driver does not tell"),
        "run, chunks only": n / summary["seconds"],
    }


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
