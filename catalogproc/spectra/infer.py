"""Prediction of any labels for the rows of a table.

Columns that the model reads (features/table_inputs.py) are inputs; every column of the table is
also written again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from catalogproc.contract import Column
from catalogproc.datasets.table_io import (
    contract_of,
    output_format,
    read_table,
    read_units,
    write_table,
)
from catalogproc.errors import JobError, plural
from catalogproc.features.derived_labels import DERIVED, described, known_labels, near_labels
from catalogproc.features.table_columns import shown
from catalogproc.features.table_inputs import TableInputs, default_job
from catalogproc.inference.predicted_columns import Numbers, predicted_columns, requested_tokens
from catalogproc.inference.table_prediction import counts_text, predict_table
from catalogproc.network.predictor import Predictor
from catalogproc.spectra.files import model_facts

Progress = Callable[[int, int, str], None]


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
    near
        By column that is not used: advice on the label that it may be meant as.
    """

    rows: int
    predicted: int
    used: tuple[str, ...]
    ignored: tuple[str, ...]
    columns: tuple[str, ...]
    output: Path
    typical_errors: Mapping[str, int] = field(default_factory=dict)
    near: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return the result as lines of text."""
        near = self.near
        others = [f"{n} ({near[n]})" if n in near else n for n in self.ignored]
        text = [
            f"{plural(self.rows, 'row')} written to {self.output}",
            f"used as inputs: {shown(self.used)}",
            f"not used: {shown(others) or 'none'}",
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
        Tokens, or ``age`` [Gyr], ``ebv`` [mag], ``dist`` [kpc], which needs G magnitudes; in any
        case.
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
    wanted = known_labels(labels, vocabulary, "--labels")
    table, units = read_table(path), read_units(path)
    _check_arrays(table, output)
    inputs = TableInputs.of(table, vocabulary, default_job(vocabulary), units=units, where=path)
    tokens = requested_tokens(wanted, inputs, table.column_names, path)
    prediction = predict_table(predictor, inputs, tokens, progress)
    typical = prediction.typical_errors
    table, added = _with_predictions(table, predicted_columns(wanted, prediction, vocabulary))
    facts = model_facts(bundle) | ({"typical_errors": counts_text(typical)} if typical else {})
    described = _described_inputs(inputs, units) | added
    meaning = f"Predictions of the model {bundle.name}"
    contract = contract_of(table, "inferred", meaning, described, units)
    write_table(output, table, contract, facts)
    read = int(prediction.read.sum())
    return InferResult(
        len(inputs), read, inputs.used, inputs.ignored, tuple(added), output, typical,
        near_labels(inputs.ignored, inputs.used, vocabulary),
    )  # fmt: skip


def _check_arrays(table: pa.Table, output: Path) -> None:
    """Raise JobError where the table has arrays, and the output is text, which has none."""
    arrays = [field.name for field in table.schema if pa.types.is_nested(field.type)]
    if arrays and output_format(output) == "csv":
        raise JobError(
            "CSV has no place for arrays", wanted="an output .parquet, .fits or .vot",
            found=f"arrays: {shown(arrays)}", where="--output",
        )  # fmt: skip


def _with_predictions(table: pa.Table, made: Numbers) -> tuple[pa.Table, dict[str, Column]]:
    """Return the table with the columns of the labels, and the new columns by name."""
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
    columns = {}
    for token, name in inputs.named.items():
        word = name.lower() if name.lower() in DERIVED else token
        unit, meaning = described(word, inputs.vocabulary)
        columns[name] = _column(name, units.get(name) or unit, meaning)
    return columns


def _column(name: str, unit: str, meaning: str) -> Column:
    return Column(name, "float32", meaning, unit=unit, nullable=True)
