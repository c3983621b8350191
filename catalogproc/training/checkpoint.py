"""Files that a training writes in its folder.

checkpoint.safetensors   all tensors of the training's state, and facts in its header
learning_curve.csv       one line per report: step and metrics
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
    """Replace the checkpoint of a folder atomically. It contains no pickle.

    Parameters
    ----------
    folder
        Folder of the training.
    tensors
        The state of the training by name.
    facts
        Further state, as JSON.
    """
    from safetensors.torch import save

    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(folder / CHECKPOINT, save(stored, metadata={"facts": json.dumps(facts)}))


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the tensors (on the CPU) and facts of a folder's checkpoint, None without one.

    Parameters
    ----------
    folder
        Folder of the training.

    Raises
    ------
    ResumeError
        The file is no checkpoint.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            # Cloned, because a training changes its state and the file is memory-mapped.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ResumeError("the checkpoint cannot be read", found=error, where=path) from None
    return tensors, facts


class LearningCurve:
    """The learning curve of a folder; lines of later steps than ``step`` are removed.

    Parameters
    ----------
    folder
        Folder of the training.
    step
        Number of steps done so far.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / CURVE
        self.rows = tuple(row for row in read_curve(folder) if row["step"] <= step)
        lines = [",".join(("step", *METRICS)), *map(_line, self.rows)]
        write_atomic(self.path, "".join(f"{line}\n" for line in lines).encode())

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append a line.

        Parameters
        ----------
        step
            Number of steps done.
        metrics
            Some of METRICS; the others are left empty.
        """
        row: dict[str, float] = {"step": step, **metrics}
        self.rows += (row,)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(row) + "\n")
            file.flush()
            os.fsync(file.fileno())


def read_curve(folder: Path) -> tuple[dict[str, float], ...]:
    """Return the lines of a folder's learning curve, each with the metrics that it has.

    Parameters
    ----------
    folder
        Folder of the training, or of a bundle.
    """
    path = folder / CURVE
    if not path.is_file():
        return ()
    with path.open(encoding="utf-8", newline="") as file:
        # A line that a crash truncated has no last column.
        complete = [row for row in csv.DictReader(file) if row[METRICS[-1]]]
    return tuple({name: float(value) for name, value in row.items() if value} for row in complete)


def _line(row: Mapping[str, float]) -> str:
    numbers = [f"{row[name]:.9g}" if name in row else "" for name in METRICS]
    return ",".join([f"{row['step']:.0f}", *numbers])
