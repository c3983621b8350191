"""Files that are there whole or not at all, and those that a training leaves in its folder.

checkpoint.safetensors   all tensors of the training's state, and facts in its header
learning_curve.csv       a line a report: step and metrics
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogproc.errors import ResumeError
from catalogproc.io.atomic import write_atomic

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINT = "checkpoint.safetensors"
CURVE = "learning_curve.csv"
METRICS = ("loss", "validation_loss", "rate", "stars_per_second")


def save_checkpoint(folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write a checkpoint in place of the last one, whole or not at all. No pickle in it."""
    from safetensors.torch import save

    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(folder / CHECKPOINT, save(stored, metadata={"facts": json.dumps(facts)}))


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The tensors (on the CPU) and facts of a folder's checkpoint, None where it has none.

    Raises ResumeError for a file that is no checkpoint.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            # Cloned, because a training writes into its state and the file is mapped.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ResumeError("a checkpoint that cannot be read", found=error, where=path) from None
    return tensors, facts


class Curve:
    """The learning curve of a folder, from which later lines than ``step`` are dropped."""

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / CURVE
        self.rows = tuple(row for row in read_curve(folder) if row["step"] <= step)
        lines = [",".join(("step", *METRICS)), *map(_line, self.rows)]
        write_atomic(self.path, "".join(f"{line}\n" for line in lines).encode())

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append a line; a metric that was not measured is left empty."""
        row: dict[str, float] = {"step": step, **metrics}
        self.rows += (row,)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(row) + "\n")
            file.flush()
            os.fsync(file.fileno())


def read_curve(folder: Path) -> tuple[dict[str, float], ...]:
    """The lines of a folder's learning curve, each with the metrics that it has."""
    path = folder / CURVE
    if not path.is_file():
        return ()
    with path.open(encoding="utf-8", newline="") as file:
        # A line that a crash cut short has no last column.
        whole = [row for row in csv.DictReader(file) if row[METRICS[-1]]]
    return tuple({name: float(value) for name, value in row.items() if value} for row in whole)


def _line(row: Mapping[str, float]) -> str:
    numbers = [f"{row[name]:.9g}" if name in row else "" for name in METRICS]
    return ",".join([f"{row['step']:.0f}", *numbers])
