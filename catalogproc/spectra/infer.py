"""Any question in the vocabulary, for the stars of any table.

A table's columns that are named as tokens are what is known of each star; whatever is null or
NaN is not. Everything else passes through as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc import __version__
from catalogproc.contract import Column
from catalogproc.datasets.table_io import (
    contract_of,
    output_format,
    read_table,
    read_units,
    write_table,
)
from catalogproc.errors import InputError, JobError
from catalogproc.evaluation.metrics import available
from catalogproc.features import astrometry, extinction
from catalogproc.network.bundle import Bundle
from catalogproc.network.predictor import Predictor
from catalogproc.vocabulary import Token, Vocabulary

Floats = NDArray[np.float64]
Progress = Callable[[int, int, str], None]

SLICE = 16_384
"""Stars answered between two reports of progress."""

G_MAGNITUDE = "phot_g_mean_mag"
"""Column that a distance needs besides the pseudo-luminosity."""

GIGAYEAR = 9.0
"""log10 of a Gyr in years."""


@dataclass(frozen=True)
class Derived:
    """A label that follows from a token: its name, the token, and what it is.

    As an input it is turned into the token, if the table has not got that itself.
    """

    name: str
    token: str
    unit: str
    meaning: str
    readable: bool = True


DERIVED = {
    item.name: item
    for item in (
        Derived("age", "log_age", "Gyr", "age"),
        Derived("ebv", "logebv", "mag", "E(B-V) on the SFD scale"),
        Derived("dist", "g_fakemag", "kpc", "distance", readable=False),
    )
}


@dataclass(frozen=True)
class Account:
    """What was read and written.

    ``answered`` rows had at least one token; the others have NaN for an answer.
    """

    rows: int
    answered: int
    inputs: tuple[str, ...]
    passed: tuple[str, ...]
    columns: tuple[str, ...]
    output: Path

    def lines(self) -> list[str]:
        """For people."""
        said = [
            f"read as known: {_words(self.inputs)}",
            f"passed through: {_words(self.passed) or 'nothing'}",
            f"answered: {_words(self.columns)}",
            f"{self.rows:,} rows written to {self.output}",
        ]
        if self.answered < self.rows:
            said.append(f"{self.rows - self.answered:,} rows have nothing to go by: no answer")
        return said


def infer(
    path: Path,
    labels: Sequence[str],
    output: Path,
    bundle: Bundle,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Account:
    """Answer ``labels`` for every row of a table, and write the table with the answers.

    Parameters
    ----------
    path
        A table in any format that is read. Columns named as tokens (``teff, logg, m_h, bprp,
        jh, jk, logebv, g_fakemag, bp0, …``, in capitals or not), or ``age`` in Gyr and ``ebv``
        in mag, are read; all columns are kept.
    labels
        Tokens, or ``age`` [Gyr], ``ebv`` [mag], ``dist`` [kpc], which needs the column
        ``phot_g_mean_mag``.
    output
        The format follows from its ending.

    Each label has two columns, ``label`` and ``e_label`` (one standard deviation), and a
    derived one besides ``label_16`` and ``label_84``, percentiles. Where the table has a
    column of such a name already, the answer's has ``_model`` at its end.

    Raises
    ------
    JobError
        No column is a token; a label that there is not; a distance without magnitudes.
    BundleError
        A label that the model was not trained to answer.
    InputError
        The table cannot be read, or a token column holds something other than numbers.
    """
    output_format(output)
    wanted = _labels(labels, bundle.vocabulary)
    table = read_table(path)
    known = token_columns(table.column_names, bundle.vocabulary, path)
    if "dist" in wanted and G_MAGNITUDE not in table.column_names:
        raise JobError(
            "a distance needs the apparent magnitude",
            wanted=f"a column {G_MAGNITUDE}",
            found=_words(table.column_names),
            where=path,
        )
    values = token_values(table, known, bundle.vocabulary, path)
    asked = tuple(dict.fromkeys(_token(label) for label in wanted))
    predictor = Predictor(bundle, available(device))
    mean, sigma = _answers(predictor, values, asked, progress)
    magnitude = _numbers(table, G_MAGNITUDE, path) if "dist" in wanted else None
    made: dict[str, tuple[Floats, tuple[str, str]]] = {}
    for label in wanted:
        k = asked.index(_token(label))
        made |= _columns(label, mean[:, k], sigma[:, k], magnitude, bundle.vocabulary)
    suffix = _free_names(tuple(made), table.column_names)
    for name, (numbers, _) in made.items():
        table = table.append_column(suffix[name], pa.array(numbers.astype(np.float32)))
    described = {suffix[name]: _column(suffix[name], what) for name, (_, what) in made.items()}
    described |= {
        column: _column(column, _described(token, bundle.vocabulary))
        for column, token in known.items()
    }
    meaning = f"Answers of the model {bundle.name}"
    contract = contract_of(table, "inferred", meaning, described, read_units(path))
    facts = {"catalogproc": __version__, "model": bundle.name, "model_hash": bundle.hash}
    write_table(output, table, contract, facts)
    return Account(
        rows=table.num_rows,
        answered=int(np.isfinite(values).any(axis=1).sum()),
        inputs=tuple(known),
        passed=tuple(n for n in table.column_names if n not in known and n not in described),
        columns=tuple(suffix.values()),
        output=output,
    )


def token_columns(names: Sequence[str], vocabulary: Vocabulary, where: object) -> dict[str, str]:
    """Which columns are read, and the token or derived label that each is.

    Raises JobError where none is, or where two are the same token.
    """
    found: dict[str, str] = {}
    for name in names:
        word = name if name in vocabulary else name.lower()
        if word in vocabulary or (word in DERIVED and DERIVED[word].readable):
            found[name] = word
    # A token that stands there itself counts, not one that could be made of another column.
    own = {word for word in found.values() if word in vocabulary}
    found = {n: w for n, w in found.items() if w in vocabulary or DERIVED[w].token not in own}
    taken: dict[str, str] = {}
    for name, word in found.items():
        other = taken.setdefault(word, name)
        if other != name:
            raise JobError(
                "two columns are the same token", wanted="one", found=f"{other} and {name}",
                where=where,
            )  # fmt: skip
    if not found:
        raise JobError(
            "the table has no column that the model knows",
            wanted=f"one or more of {vocabulary.summary()}, age, ebv",
            found=_words(names),
            where=where,
        )
    return found


def _labels(labels: Sequence[str], vocabulary: Vocabulary) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(label.strip() for label in labels if label.strip()))
    unknown = [label for label in wanted if label not in DERIVED and label not in vocabulary]
    if unknown or not wanted:
        raise JobError(
            "labels that the model does not have" if unknown else "no label is asked for",
            wanted=f"{vocabulary.summary()}, {', '.join(DERIVED)}",
            found=_words(unknown) or "none",
            where="--labels",
        )
    return wanted


def _token(label: str) -> str:
    return DERIVED[label].token if label in DERIVED else label


def token_values(
    table: pa.Table, known: dict[str, str], vocabulary: Vocabulary, path: Path | str
) -> Floats:
    """Dense tokens (N, V) from the columns that are read, as :func:`token_columns` found them."""
    values = np.full((table.num_rows, len(vocabulary)), np.nan)
    for name, word in known.items():
        given = _numbers(table, name, path)
        if word == "age":
            with np.errstate(divide="ignore", invalid="ignore"):
                given = np.log10(np.where(given > 0, given, np.nan)) + GIGAYEAR
        elif word == "ebv":
            given = extinction.ln_ebv(given)
        values[:, vocabulary.column(_token(word))] = given
    return values


def _numbers(table: pa.Table, name: str, path: Path | str) -> Floats:
    """A numeric column (N,), NaN where null. Raises InputError where it is none."""
    column = table[name]
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        if column.null_count == len(column):
            return np.full(len(column), np.nan)
        raise InputError(
            "a column of that name must hold numbers",
            wanted="numbers, or nothing where a value is not known",
            found=f"{column.type}, such as {column.drop_null()[0].as_py()!r}",
            where=f"{path}, column {name}",
        )
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)


def _answers(
    predictor: Predictor, values: Floats, asked: tuple[str, ...], progress: Progress | None
) -> tuple[Floats, Floats]:
    """Mean and sigma (N, K); NaN for stars of which nothing is known."""
    mean, sigma = np.full((2, len(values), len(asked)), np.nan)
    for start in range(0, len(values), SLICE):
        rows = slice(start, start + SLICE)
        answer = predictor.predict(values[rows], asked)
        mean[rows], sigma[rows] = answer.mean, answer.sigma
        if progress is not None:
            progress(min(start + SLICE, len(values)), len(values), "")
    nothing = np.isnan(values).all(axis=1)
    mean[nothing], sigma[nothing] = np.nan, np.nan
    return mean, sigma


def _columns(
    label: str, mean: Floats, sigma: Floats, magnitude: Floats | None, vocabulary: Vocabulary
) -> dict[str, tuple[Floats, tuple[str, str]]]:
    """Columns of one label by name: numbers (N,), and their unit and meaning."""
    unit, meaning = _described(label, vocabulary)
    error = (unit, f"error (1 sigma) of the {meaning}")
    if label not in DERIVED:
        return {label: (mean, (unit, meaning)), f"e_{label}": (sigma, error)}
    if label == "dist":
        low, middle, high = astrometry.distance(mean, sigma, np.asarray(magnitude))
        # To first order; the percentiles are exact.
        e_middle = middle * sigma / np.where(mean > 0, mean, np.nan)
    else:
        low, middle, high = (_undo(label, mean + shift * sigma) for shift in (-1, 0, 1))
        e_middle = middle * sigma * (np.log(10.0) if label == "age" else 1.0)
    return {
        label: (middle, (unit, meaning)),
        f"e_{label}": (e_middle, error),
        f"{label}_16": (low, (unit, f"16th percentile of the {meaning}")),
        f"{label}_84": (high, (unit, f"84th percentile of the {meaning}")),
    }


def _undo(label: str, token: Floats) -> Floats:
    return np.asarray(10.0 ** (token - GIGAYEAR) if label == "age" else np.exp(token))


def _free_names(names: Sequence[str], taken: Sequence[str]) -> dict[str, str]:
    """The names, with ``_model`` at the end where one is taken; FITS knows no case."""
    used = {name.lower() for name in taken}
    free = {}
    for name in names:
        free[name] = name
        while free[name] in used:
            free[name] += "_model"
    return free


def _described(word: str, vocabulary: Vocabulary) -> tuple[str, str]:
    """Unit and meaning of a token or derived label."""
    if word in DERIVED:
        return DERIVED[word].unit, DERIVED[word].meaning
    token: Token = vocabulary.tokens[vocabulary.column(word)]
    return token.unit, token.description


def _column(name: str, described: tuple[str, str]) -> Column:
    unit, meaning = described
    return Column(name, "float32", meaning, unit=unit, nullable=True)


def _words(names: Sequence[str]) -> str:
    shown = ", ".join(names[:30])
    return f"{shown} and {len(names) - 30} more" if len(names) > 30 else shown
