"""Prediction of any labels for the rows of a table.

Columns that the model reads (features/table_inputs.py) are inputs; every column of the table is
also written again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.contract import Column
from catalogproc.datasets.table_io import (
    contract_of,
    output_format,
    read_table,
    read_units,
    write_table,
)
from catalogproc.errors import JobError, did_you_mean, plural
from catalogproc.features import astrometry
from catalogproc.features.table_columns import shown
from catalogproc.features.table_inputs import GIGAYEAR, TableInputs, default_job
from catalogproc.inference.catalog_columns import PROBABILITIES
from catalogproc.inference.table_prediction import TablePrediction, counts_text, predict_table
from catalogproc.network.bundle import Bundle
from catalogproc.network.predictor import Predictor
from catalogproc.spectra.files import model_facts
from catalogproc.vocabulary import Vocabulary

Floats = NDArray[np.float64]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class DerivedLabel:
    """A label that is computed from a token: its name, the token, and its unit and meaning."""

    name: str
    token: str
    unit: str
    meaning: str


DERIVED = {
    item.name: item
    for item in (
        DerivedLabel("age", "log_age", "Gyr", "age"),
        DerivedLabel("ebv", "logebv", "mag", "E(B-V) on the SFD scale"),
        DerivedLabel("dist", "g_fakemag", "kpc", "distance"),
    )
}


@dataclass(frozen=True)
class InferResult:
    """What was read and written.

    Attributes
    ----------
    rows, predicted
        Rows of the table, and those with at least one token; the others get NaN.
    used, ignored
        Columns of the table that the model read, and all others; both are written again.
    columns
        Columns that were added.
    output
        The file.
    typical_errors
        By input without an error: the number of rows for which a model that reads errors took
        the typical one of its training.
    """

    rows: int
    predicted: int
    used: tuple[str, ...]
    ignored: tuple[str, ...]
    columns: tuple[str, ...]
    output: Path
    typical_errors: Mapping[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return the result as lines of text."""
        text = [
            f"{plural(self.rows, 'row')} written to {self.output}",
            f"used as inputs: {shown(self.used)}",
            f"not used: {shown(self.ignored) or 'none'}",
            f"predicted: {shown(self.columns)}",
        ]
        if self.typical_errors:
            text.append(
                f"typical errors taken, as none is given: {counts_text(self.typical_errors)}"
            )
        if self.predicted < self.rows:
            text.append(
                f"{plural(self.rows - self.predicted, 'row')} without any input: no prediction"
            )
        return text


def infer(
    path: Path,
    labels: Sequence[str],
    output: Path,
    predictor: Predictor,
    progress: Progress | None = None,
) -> InferResult:
    """Predict labels for every row of a table, and write the table with the predictions.

    Each label adds two columns, ``label`` and ``e_label`` (total 1-sigma uncertainty, as in a
    catalog), a probability (``rc_prob``) the first alone; a derived one also ``label_16`` and
    ``label_84``, percentiles. Where the table has a column of such a name, that of the
    prediction ends in ``_model``.

    Parameters
    ----------
    path
        A table in any format that is read. Inputs are the columns that
        :mod:`catalogproc.features.table_inputs` lists, in the units that the file states. All
        columns are kept.
    labels
        Tokens, or ``age`` [Gyr], ``ebv`` [mag], ``dist`` [kpc], which needs G magnitudes.
    output
        The format follows from the file extension.
    predictor
        The trained model.
    progress
        Called with the number of rows predicted, the number of rows, and an empty text.

    Raises
    ------
    JobError
        An unknown label; a distance without magnitudes.
    ContractError
        No column is an input; two columns are the same token; a column that does not hold
        numbers, or in a unit that cannot be converted.
    BundleError
        A label that the model was not trained to predict.
    InputError
        The table cannot be read.
    """
    output_format(output)
    bundle, vocabulary = predictor.bundle, predictor.bundle.vocabulary
    wanted = _labels(labels, vocabulary)
    table, units = read_table(path), read_units(path)
    inputs = TableInputs.of(table, vocabulary, default_job(vocabulary), units=units, where=path)
    prediction = predict_table(predictor, inputs, _tokens(wanted, inputs, table, path), progress)
    typical = prediction.typical_errors
    table, added = _with_predictions(table, wanted, prediction, bundle)
    facts = model_facts(bundle) | ({"typical_errors": counts_text(typical)} if typical else {})
    described = _described_inputs(inputs, units) | added
    meaning = f"Predictions of the model {bundle.name}"
    contract = contract_of(table, "inferred", meaning, described, units)
    write_table(output, table, contract, facts)
    read = int(prediction.read.sum())
    return InferResult(
        len(inputs), read, inputs.used, inputs.ignored, tuple(added), output, typical
    )


def _tokens(
    labels: Sequence[str], inputs: TableInputs, table: pa.Table, path: Path
) -> tuple[str, ...]:
    """The tokens of labels. Raises JobError for a distance without magnitudes."""
    if "dist" in labels and not inputs.has_magnitudes:
        raise JobError(
            "a distance needs the apparent magnitude", wanted="a column phot_g_mean_mag",
            found=shown(table.column_names), where=path,
        )  # fmt: skip
    return tuple(dict.fromkeys(_token(label) for label in labels))


def _labels(labels: Sequence[str], vocabulary: Vocabulary) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(label.strip() for label in labels if label.strip()))
    unknown = [label for label in wanted if label not in DERIVED and label not in vocabulary]
    if unknown or not wanted:
        raise JobError(
            "labels that the model does not have" if unknown else "no label is requested",
            wanted=f"{vocabulary.summary()}, {', '.join(DERIVED)}",
            found=shown(unknown) or "none",
            where="--labels",
            advice=did_you_mean(unknown[0], (*vocabulary.names, *DERIVED)) if unknown else None,
        )
    return wanted


def _token(label: str) -> str:
    return DERIVED[label].token if label in DERIVED else label


def _columns(
    label: str, prediction: TablePrediction, bundle: Bundle
) -> dict[str, tuple[Floats, tuple[str, str]]]:
    """Columns of one label by name: numbers (N,), and their unit and meaning."""
    token = _token(label)
    mean, sigma = prediction.mean[token], prediction.sigma[token]
    unit, meaning = _described(label, bundle.vocabulary)
    error = (unit, f"total 1-sigma uncertainty of the {meaning}")
    if label in PROBABILITIES:
        return {label: (mean, (unit, meaning))}
    if label not in DERIVED:
        return {label: (mean, (unit, meaning)), f"e_{label}": (sigma, error)}
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        low, middle, high = _percentiles(label, prediction)
        if label == "age":
            e_middle = (high - low) / 2.0  # as in a catalog
        else:  # to first order
            e_middle = (
                middle * sigma / (1.0 if label == "ebv" else np.where(mean > 0, mean, np.nan))
            )
    return {
        label: (middle, (unit, meaning)),
        f"e_{label}": (e_middle, error),
        f"{label}_16": (low, (unit, f"16th percentile of the {meaning}")),
        f"{label}_84": (high, (unit, f"84th percentile of the {meaning}")),
    }


def _percentiles(label: str, prediction: TablePrediction) -> tuple[Floats, Floats, Floats]:
    """16th percentile, prediction and 84th percentile (N,) of a derived label, as in a catalog."""
    token = _token(label)
    low, mean, high = (part[token] for part in (prediction.low, prediction.mean, prediction.high))
    if label == "dist":
        far, middle, near = (
            astrometry.distance(f, 0.0, prediction.g_mag)[1] for f in (low, mean, high)
        )
        return near, middle, far
    if label == "age":
        young, middle, old = (10.0 ** (value - GIGAYEAR) for value in (low, mean, high))
        return young, middle, old
    return np.exp(low), np.exp(mean), np.exp(high)


def _with_predictions(
    table: pa.Table, labels: Sequence[str], prediction: TablePrediction, bundle: Bundle
) -> tuple[pa.Table, dict[str, Column]]:
    """Return the table with the columns of the labels, and the new columns by name."""
    made: dict[str, tuple[Floats, tuple[str, str]]] = {}
    for label in labels:
        made |= _columns(label, prediction, bundle)
    names, added = _free_names(tuple(made), table.column_names), {}
    for name, (numbers, (unit, meaning)) in made.items():
        added[names[name]] = _column(names[name], unit, meaning)
        table = table.append_column(names[name], pa.array(numbers.astype(np.float32)))
    return table, added


def _free_names(names: Sequence[str], taken: Sequence[str]) -> dict[str, str]:
    """The names, with ``_model`` at the end where one is taken; FITS ignores case."""
    used = {name.lower() for name in taken}
    free = {}
    for name in names:
        free[name] = name
        while free[name] in used:
            free[name] += "_model"
    return free


def _described_inputs(inputs: TableInputs, units: Mapping[str, str]) -> dict[str, Column]:
    """The table's columns that are tokens, in the unit that the file states or else the token's."""
    described = {}
    for token, name in inputs.named.items():
        word = name.lower() if name.lower() in DERIVED else token
        unit, meaning = _described(word, inputs.vocabulary)
        described[name] = _column(name, units.get(name) or unit, meaning)
    return described


def _described(word: str, vocabulary: Vocabulary) -> tuple[str, str]:
    """Unit and meaning of a token or derived label."""
    item: Any = DERIVED[word] if word in DERIVED else vocabulary.tokens[vocabulary.column(word)]
    return item.unit, item.meaning if word in DERIVED else item.description


def _column(name: str, unit: str, meaning: str) -> Column:
    return Column(name, "float32", meaning, unit=unit, nullable=True)
