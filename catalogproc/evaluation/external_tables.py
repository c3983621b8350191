"""What is compared, read: a catalog's good answers, member lists, known clusters, masses."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from catalogproc.errors import InputError

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

SHARED = ("m_h", "log_age")
"""What the stars of a cluster share, as the catalog's columns."""

AGED = ("mass", "age", "log_age")
"""Of use where good_mass_age is set; all else where good_params is."""

NAMES = {
    "source_id": ("source_id", "GaiaDR3", "Source", "dr3_source_id"),
    "cluster": ("cluster", "Name", "Cluster"),
    "probability": ("probability", "Prob", "Proba", "proba"),
}
"""What the columns of a member list are called: ours, Hunt & Reffert's (2023), Cantat-Gaudin's."""


@dataclass(frozen=True)
class Members:
    """Stars of clusters (M,): their source_id, the cluster's name, how likely they belong to it."""

    source_id: Ids
    cluster: NDArray[np.str_]
    probability: Floats

    def likely(self, least: float) -> Members:
        """Those that belong with at least that probability."""
        rows = self.probability >= least
        return Members(self.source_id[rows], self.cluster[rows], self.probability[rows])


@dataclass(frozen=True, eq=False)
class Answers:
    """Of a catalog's stars (N,): identifiers, log g, and by label the answers, their errors, and
    the part of these that is due to what was read. NaN where a label is not good."""

    source_id: Ids
    logg: Floats
    value: dict[str, Floats]
    error: dict[str, Floats]
    noise: dict[str, Floats]


def read_answers(folder: Path | str, labels: Sequence[str]) -> Answers:
    """The good stars of a finished catalog: those with good_params, masses and ages where
    good_mass_age is set too. Raises InputError for no catalog, or one without a star."""
    kinds = {"value": "{}", "error": "e_{}", "noise": "e_{}_input"}
    columns = {
        kind: {label: words.format(label) for label in labels} for kind, words in kinds.items()
    }
    names = {"logg", *(name for found in columns.values() for name in found.values())}
    try:
        table = ds.dataset(Path(folder) / "catalog", format="parquet").to_table(
            columns=["source_id", "good_mass_age", *sorted(names)], filter=ds.field("good_params")
        )
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            "no finished catalog", wanted="the folder that run wrote", found=error, where=folder
        ) from error
    if not table.num_rows:
        raise InputError("no star of the catalog has good_params", where=folder)
    aged = table["good_mass_age"].to_numpy()

    def numbers(label: str, name: str) -> Floats:
        column = table[name].cast(pa.float64()).to_numpy()
        return np.where(aged, column, np.nan) if label in AGED else column

    found = {
        kind: {label: numbers(label, name) for label, name in of_kind.items()}
        for kind, of_kind in columns.items()
    }
    logg = table["logg"].cast(pa.float64()).to_numpy()
    return Answers(table["source_id"].to_numpy(), logg, **found)


def read_members(path: Path | str) -> Members:
    """A member list, Parquet or CSV, such as Hunt & Reffert's (2023) or Cantat-Gaudin et al.'s.

    Its columns are found by NAMES; without probabilities all are 1. Raises InputError for a
    list that cannot be read, or that has no such columns. Identifiers never pass through a
    float, which cannot hold them.
    """
    table = _table(path, "the member list")
    names = {key: _named(table, key) for key in NAMES}
    if names["source_id"] is None or names["cluster"] is None:
        raise _unusable(path, "the member list", table, "source_id and cluster")
    ids = _identifiers(path, table, names["source_id"])
    clusters = np.array([str(name).strip() for name in table[names["cluster"]].to_pylist()])
    likely = np.ones(len(ids))
    if names["probability"] is not None:
        likely = np.nan_to_num(_numbers(path, table, names["probability"]))
    return Members(ids, clusters, likely)


def read_known(path: Path | str) -> dict[str, dict[str, float]]:
    """What the literature says of clusters: a table with ``cluster`` and any of SHARED.

    By cluster and label. Raises InputError.
    """
    table = _table(path, "the table of clusters")
    name = _named(table, "cluster")
    labels = [label for label in SHARED if label in table.column_names]
    if name is None or not labels:
        raise _unusable(path, "the table of clusters", table, f"cluster, and {' or '.join(SHARED)}")
    columns = {label: _numbers(path, table, label) for label in labels}
    return {
        str(cluster).strip(): {label: float(values[row]) for label, values in columns.items()}
        for row, cluster in enumerate(table[name].to_pylist())
    }


def read_masses(path: Path | str) -> tuple[Ids, Floats, Floats]:
    """source_id, masses and their errors in solar masses (M,), such as of asteroseismology.

    A table with ``source_id``, ``mass``, ``e_mass``. Raises InputError.
    """
    table = _table(path, "the table of masses")
    name = _named(table, "source_id")
    if name is None or not {"mass", "e_mass"} <= {*table.column_names}:
        raise _unusable(path, "the table of masses", table, "source_id, mass, e_mass")
    ids = _identifiers(path, table, name)
    return ids, _numbers(path, table, "mass"), _numbers(path, table, "e_mass")


def _table(path: Path | str, what: str) -> pa.Table:
    path = Path(path)
    try:
        if path.suffix != ".csv":
            return ds.dataset(path).to_table()
        # As text first, so that no identifier is taken for a float.
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
        if not rows:
            raise ValueError("it is empty")
        return pa.table({name: [row[name] or None for row in rows] for name in rows[0]})
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(
            f"{what} cannot be read", wanted="Parquet, or CSV with a header", found=error,
            where=path,
        ) from error  # fmt: skip


def _named(table: pa.Table, key: str) -> str | None:
    return next((name for name in NAMES[key] if name in table.column_names), None)


def _identifiers(path: Path | str, table: pa.Table, name: str) -> Ids:
    try:
        if pa.types.is_floating(table[name].type):
            raise ValueError("a float does not hold identifiers")
        return np.asarray(table[name].cast(pa.int64()).to_numpy())
    except (ValueError, pa.ArrowException) as error:
        raise InputError(
            "identifiers cannot be read", wanted="64-bit integers", found=error,
            where=f"{path}, column {name}",
        ) from error  # fmt: skip


def _numbers(path: Path | str, table: pa.Table, name: str) -> Floats:
    try:
        return np.asarray(table[name].cast(pa.float64()).to_numpy())
    except pa.ArrowException as error:
        raise InputError(
            "numbers cannot be read", found=error, where=f"{path}, column {name}"
        ) from error


def _unusable(path: Path | str, what: str, table: pa.Table, wanted: str) -> InputError:
    return InputError(
        f"{what} lacks columns", wanted=wanted, found=", ".join(table.column_names), where=path
    )
