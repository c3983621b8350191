"""Tables for external validation: a catalog's good stars, member lists, clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from catalogproc.datasets.table_io import read_table, read_units
from catalogproc.errors import ContractError, InputError
from catalogproc.features.table_inputs import TableInputs
from catalogproc.vocabulary import load_vocabulary

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

SHARED = ("m_h", "log_age")
"""Labels that the stars of a cluster share."""

AGED = ("mass", "age", "log_age")
"""Labels that need good_mass_age; the others need good_params."""

NAMES = {
    "source_id": ("source_id", "GaiaDR3", "Source", "dr3_source_id"),
    "cluster": ("cluster", "Name", "Cluster"),
    "probability": ("probability", "Prob", "Proba", "proba"),
}
"""Column names of member lists: ours, Hunt & Reffert (2023), Cantat-Gaudin et al."""


@dataclass(frozen=True)
class Members:
    """Stars of clusters (M,): source_id, name of the cluster, membership probability."""

    source_id: Ids
    cluster: NDArray[np.str_]
    probability: Floats

    def likely(self, least: float) -> Members:
        """Return the members with a minimum probability.

        Parameters
        ----------
        least
            The minimum.
        """
        rows = self.probability >= least
        return Members(self.source_id[rows], self.cluster[rows], self.probability[rows])


@dataclass(frozen=True, eq=False)
class CatalogStars:
    """The good stars of a catalog (N,); NaN where a label is not good.

    Attributes
    ----------
    source_id, logg
        Identifiers and log g.
    value, error, noise
        By label: the prediction, its total and its input uncertainty.
    """

    source_id: Ids
    logg: Floats
    value: dict[str, Floats]
    error: dict[str, Floats]
    noise: dict[str, Floats]


def read_good_stars(folder: Path | str, labels: Sequence[str]) -> CatalogStars:
    """Read the stars with good_params of a finished catalog.

    Masses and ages are those with good_mass_age.

    Parameters
    ----------
    folder
        A run folder.
    labels
        Names of the catalog's columns.

    Raises
    ------
    InputError
        Not a finished catalog, or one without a good star.
    """
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
    return CatalogStars(table["source_id"].to_numpy(), logg, **found)


def read_members(path: Path | str) -> Members:
    """Read a member list, such as Hunt & Reffert's (2023) or Cantat-Gaudin et al.'s.

    Identifiers never pass through a float, which cannot hold them.

    Parameters
    ----------
    path
        A table with columns of NAMES; without probabilities all are 1.

    Raises
    ------
    InputError
        The list cannot be read, or lacks columns.
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
    """Read literature values of clusters.

    Parameters
    ----------
    path
        A table with ``cluster`` and any of ``m_h``, ``log_age`` or ``age`` [Gyr], in any case,
        in the units that the file states.

    Returns
    -------
    dict
        Values by cluster and label.

    Raises
    ------
    InputError
        The table cannot be read, or lacks columns.
    ContractError
        A column does not hold numbers, or its unit cannot be converted.
    """
    what = "the table of clusters"
    table = _table(path, what)
    name = _named(table, "cluster")
    given = _given(path, table, what, SHARED, f"cluster, and {' or '.join(SHARED)}")
    columns = {label: given[label][0] for label in SHARED if label in given}
    if name is None or not columns:
        raise _unusable(path, what, table, f"cluster, and {' or '.join(SHARED)}")
    return {
        str(cluster).strip(): {label: float(values[row]) for label, values in columns.items()}
        for row, cluster in enumerate(table[name].to_pylist())
    }


def _given(
    path: Path | str, table: pa.Table, what: str, labels: Sequence[str], columns: str
) -> Mapping[str, tuple[Floats, Floats]]:
    """Values and errors (M,) by token. Raises InputError where the table has none of the labels."""
    vocabulary = load_vocabulary()
    try:
        inputs = TableInputs.of(table, vocabulary, units=_units(path), where=path)
    except ContractError as error:
        if any(name.lower() in vocabulary for name in table.column_names):
            raise
        raise _unusable(path, what, table, columns) from error
    if not any(label in inputs.given for label in labels):
        raise _unusable(path, what, table, columns)
    return inputs.given


def _units(path: Path | str) -> dict[str, str]:
    # A folder of Parquet parts states its units in each part's schema, which `_table` keeps.
    return read_units(Path(path)) if Path(path).is_file() else {}


def _table(path: Path | str, what: str) -> pa.Table:
    """A file in any format that is read, or a folder of Parquet files."""
    path = Path(path)
    try:
        return ds.dataset(path).to_table() if path.is_dir() else read_table(path)
    except (OSError, InputError, pa.ArrowException) as error:
        raise InputError(
            f"{what} cannot be read", wanted="CSV, ECSV, Parquet, FITS or VOTable",
            found=error, where=path,
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
