"""summary.json: a run in numbers, from run.json and the receipts alone."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from catalogproc.io.atomic import as_json, write_atomic
from catalogproc.readers.auxiliary_account import added, zero_point_summary
from catalogproc.rundir.manifest import RunIdentity, read_identity
from catalogproc.rundir.receipts import Receipt, iterate_receipts

SUMMARY_FILE = "summary.json"
LIBRARIES = ("catalogproc", "torch", "numpy", "pyarrow", "astropy", "dask")
REFERENCE_LINKS = {
    "Zhang, Bu et al. 2026, arXiv:2603.03732": "https://arxiv.org/abs/2603.03732",
    "Leung & Bovy 2024, MNRAS 527, 1494": "https://doi.org/10.1093/mnras/stad3015",
}
"""Papers of the method, and where they are."""

REFERENCES = "; ".join(REFERENCE_LINKS)
"""The papers whose method the catalog follows."""


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Return the versions of Python, catalogproc and its libraries, without importing them."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if "catalogproc" not in found:
        from catalogproc import __version__

        found["catalogproc"] = __version__
    return found


def summarise(identity: RunIdentity, receipts: Iterable[Receipt]) -> dict[str, Any]:
    """Return the content of summary.json: rows, reasons, times, model, versions.

    Parameters
    ----------
    identity
        The run.
    receipts
        Its receipts.

    Returns
    -------
    dict
        ``auxiliary`` says what was taken from each table (readers/joined_rows.py);
        ``zero_point_difference`` how the two zero-points of the parallaxes differ, if stars
        have both. ``seconds`` is the wall time during which at least one chunk was in work, over
        all starts; ``stage_seconds`` is summed over all workers.
    """
    counts, times = _Counts(), _Times()
    for receipt in receipts:
        counts.add(receipt)
        times.add(receipt)
    busy = _union(times.spans)
    return {
        "run_id": identity.run_id,
        "rows_read": counts.rows["read"],
        "rows_written": counts.rows["written"],
        "rows_rejected": counts.rows["rejected"],
        "rejected_by_reason": dict(counts.reasons),
        "rows_matched": counts.rows["matched"] if identity.auxiliary else None,
        "auxiliary": counts.auxiliary,
        "zero_point_difference": zero_point_summary(counts.zero_points),
        "chunks": counts.chunks,
        "input_files": len(identity.inputs),
        "seconds": round(busy, 3),
        "stars_per_second": round(counts.rows["read"] / busy, 1) if busy > 0 else 0.0,
        "stage_seconds": {name: round(value, 3) for name, value in times.stages.items()},
        "started": times.started,
        "finished": times.finished,
        "job": {"name": identity.job.get("name", ""), "hash": identity.job_hash},
        "model": {**identity.model, "hash": identity.model_hash},
        "devices": sorted(counts.devices),
        "precisions": sorted(counts.precisions),
        "versions": {name: ", ".join(sorted(all_)) for name, all_ in counts.versions.items()},
        "references": REFERENCES,
    }


class _Counts:
    """Rows, reasons, devices and versions, summed over receipts."""

    def __init__(self) -> None:
        self.chunks = 0
        self.rows: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.auxiliary: dict[str, dict[str, int]] = {}
        self.zero_points: Counter[str] = Counter()
        self.devices: set[str] = set()
        self.precisions: set[str] = set()
        self.versions: dict[str, set[str]] = {}

    def add(self, receipt: Receipt) -> None:
        self.chunks += 1
        self.rows.update(
            read=receipt.rows_read,
            written=receipt.rows_written,
            rejected=receipt.rows_rejected,
            matched=receipt.rows_matched,
        )
        self.reasons.update(receipt.rejected_by_reason)
        self.auxiliary = added((self.auxiliary, receipt.auxiliary))
        self.zero_points.update(receipt.zero_point_differences)
        self.devices.add(receipt.device)
        self.precisions.add(receipt.precision)
        for name, value in receipt.versions.items():
            self.versions.setdefault(name, set()).add(value)


class _Times:
    """Start, end, and seconds by stage, over receipts."""

    def __init__(self) -> None:
        self.started, self.finished = "", ""
        self.spans: list[tuple[float, float]] = []
        self.stages: Counter[str] = Counter()

    def add(self, receipt: Receipt) -> None:
        start = datetime.fromisoformat(receipt.started).timestamp()
        self.spans.append((start, start + receipt.seconds))
        self.started = min(self.started or receipt.started, receipt.started)
        self.finished = max(self.finished, receipt.finished)
        self.stages.update(receipt.stage_seconds)


def busy_seconds(receipts: Iterable[Receipt]) -> float:
    """Return the seconds in which at least one chunk was being processed.

    Parameters
    ----------
    receipts
        Of finished chunks.
    """
    times = _Times()
    for receipt in receipts:
        times.add(receipt)
    return _union(times.spans)


def _union(spans: list[tuple[float, float]]) -> float:
    """Return the length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, reached))
        reached = max(reached, stop)
    return total


def write_summary(folder: Path, failures: Sequence[Mapping[str, str]] = ()) -> dict[str, Any]:
    """Write summary.json from run.json and the receipts.

    Parameters
    ----------
    folder
        The output folder of a run.
    failures
        The chunks that failed in this start, each as texts by name: chunk, file, cause.

    Returns
    -------
    dict
        The content.

    Raises
    ------
    ResumeError
        The folder holds no run.
    CatalogprocError
        The file cannot be written.
    """
    content = summarise(read_identity(folder), iterate_receipts(folder))
    content |= {"chunks_failed": len(failures), "failures": [dict(item) for item in failures]}
    write_atomic(Path(folder) / SUMMARY_FILE, as_json(content))
    return content


def read_summary(folder: Path) -> dict[str, Any] | None:
    """Return the content of summary.json, None if it cannot be read.

    Parameters
    ----------
    folder
        The output folder of a run.
    """
    return read_json(Path(folder) / SUMMARY_FILE)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file, None if there is none that can be read.

    Parameters
    ----------
    path
        The file.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
