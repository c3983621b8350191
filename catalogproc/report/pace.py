"""How fast a run was, moment by moment, from its receipts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from catalogproc.rundir.receipts import Receipt

Float = NDArray[np.float64]

MOST_BINS = 80


@dataclass(frozen=True)
class Pace:
    """``rate`` (N,), stars a second between ``seconds`` (N + 1,) of the time at work.

    At ``breaks`` no chunk was being worked on: the run had been stopped, and went on later.
    """

    seconds: Float
    rate: Float
    breaks: tuple[float, ...]


def pace(receipts: Sequence[Receipt]) -> Pace:
    """The speed of a run; a chunk's rows are taken to come evenly while it was worked on."""
    if not receipts:
        return Pace(np.array([0.0, 1.0]), np.zeros(1), ())
    begin = np.array([datetime.fromisoformat(r.started).timestamp() for r in receipts])
    spent = np.maximum(np.array([r.seconds for r in receipts]), 1e-3)
    rows = np.array([r.rows_read for r in receipts], dtype=np.float64)
    order = np.argsort(begin)
    begin, end, rows = begin[order], (begin + spent)[order], rows[order]
    reached = np.maximum.accumulate(end)
    # What lies between the end of all earlier chunks and the begin of the next is no work.
    idle = np.concatenate([[0.0], np.maximum(begin[1:] - reached[:-1], 0.0)])
    left_out = np.cumsum(idle) + begin[0]
    first, last = begin - left_out, end - left_out
    edges = np.linspace(0.0, last.max(), min(MOST_BINS, max(4, 4 * len(rows))) + 1)
    # Rows done until a moment, summed over chunks: each rises evenly from 0 to its rows.
    done = np.zeros(len(edges))
    for a, b, count in zip(first, last, rows, strict=True):
        done += count * np.clip((edges - a) / (b - a), 0.0, 1.0)
    breaks = tuple(float(moment) for moment in first[idle > 1.0])
    return Pace(edges, np.diff(done) / np.diff(edges), breaks)
