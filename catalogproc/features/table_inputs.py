"""Tokens with errors from the columns of any table.

A column is read if its name, in any case, is one of

* a token of the vocabulary (``teff``, ``bp0``, …), or ``age`` [Gyr] or ``ebv`` [mag];
* the error of one of these: ``e_NAME`` or ``NAME_error``;
* a spectrum as in the archive (``bp_coefficients``, …) or a column of gaia_source from which
  the job makes a token.

Null, NaN and masked values are missing. A token given by name comes before one that is made
of other columns, star by star.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.contract import load_contract
from catalogproc.errors import ContractError
from catalogproc.features import extinction
from catalogproc.features.star_batch import read, without_spectra
from catalogproc.features.table_columns import TableColumns
from catalogproc.features.tokens import (
    PARALLAX_TOKENS,
    PHOTOMETRY,
    SOURCES,
    Tokens,
    check_inputs,
    from_stars,
)
from catalogproc.job import Job
from catalogproc.network.star_tokens import StarTokens
from catalogproc.readers.column_lookup import meant
from catalogproc.readers.xp_layout import SAMPLED
from catalogproc.readers.xp_sampled import checked
from catalogproc.vocabulary import BANDS, Vocabulary

Float = NDArray[np.float64]
Measured = tuple[Float, Float]

GIGAYEAR = 9.0
"""log10 of a Gyr in years."""

LOGARITHMS = {"logg": "dex(cm / s2)", "log_age": "dex(yr)"}
"""Tokens that are logarithms of a quantity with a unit."""


@dataclass(frozen=True)
class DerivedInput:
    """A quantity that is transformed to a token: its name, the token, and its unit."""

    name: str
    token: str
    unit: str


DERIVED = {
    item.name: item
    for item in (DerivedInput("age", "log_age", "Gyr"), DerivedInput("ebv", "logebv", "mag"))
}

_ERROR_OF = {"e_ln_ebv": "logebv"}
"""Errors whose columns in gaia_source have another name."""


@dataclass(frozen=True, eq=False)
class TableInputs:
    """What a table of N rows holds for the model.

    Attributes
    ----------
    vocabulary
        The model's tokens.
    job
        Which tokens are made of spectra and gaia_source columns; None makes none.
    rows
        N.
    named
        By token: the column that is named so, or that it is derived from.
    given
        By token of ``named``: values and errors (N,), NaN where missing.
    spectra
        Columns of the contract xp_continuous (N rows), or None.
    auxiliary
        Columns of the contract gaia_source (N rows), or None.
    used, ignored
        Names of the columns that tokens and their errors are made of, and of all others, in
        the table's order.
    source_id
        Gaia source identifiers (N,), or None.
    """

    vocabulary: Vocabulary
    job: Job | None
    rows: int
    named: Mapping[str, str]
    given: Mapping[str, Measured]
    spectra: pa.Table | None
    auxiliary: pa.Table | None
    used: tuple[str, ...]
    ignored: tuple[str, ...]
    source_id: pa.Array | None
    _has_photometry: bool = False

    def __len__(self) -> int:
        return self.rows

    @classmethod
    def of(
        cls,
        table: Any,
        vocabulary: Vocabulary,
        job: Job | None = None,
        *,
        units: Mapping[str, str] | None = None,
        where: object = None,
    ) -> TableInputs:
        """Find the inputs of a model in a table.

        Parameters
        ----------
        table
            A table of N rows: of pyarrow, pandas or astropy, or one with the Arrow C stream
            interface, such as those of polars.
        vocabulary
            The model's tokens.
        job
            Which tokens are made of spectra and gaia_source columns; None makes none.
        units
            Units of columns, by name; by default those that the table states. A column
            without a unit is taken to be in the token's or the contract's.
        where
            The table's name in error messages.

        Raises
        ------
        JobError
            An input of the job cannot be made.
        ContractError
            Not a table; no column that can be read; two columns that are the same token; a
            column of another type, or in a unit that cannot be converted.
        """
        if job is not None:
            check_inputs(job, vocabulary)
        columns = TableColumns.of(table, units, where)
        roles = _Roles.of(columns, vocabulary, job)
        given = {token: _given(columns, roles, token, vocabulary) for token in roles.tokens}
        spectra = auxiliary = None
        of = [f"{band}_coefficients" for band in BANDS]
        if any(name in roles.spectra for name in (*of, "flux")):
            spectra = _readable(columns.conformed("xp_continuous", roles.spectra), where)
        if roles.auxiliary:
            auxiliary = columns.conformed("gaia_source", roles.auxiliary)
        if spectra is None and not given and not set(roles.auxiliary) - {*PHOTOMETRY}:
            raise _no_inputs(columns, vocabulary, job)
        return cls(
            vocabulary, job, columns.rows, roles.named(columns), given, spectra, auxiliary,
            *roles.used_and_ignored(columns), columns.identifiers(),
            not {*PHOTOMETRY}.isdisjoint(roles.auxiliary),
        )  # fmt: skip

    @property
    def given_tokens(self) -> StarTokens:
        """The tokens of the columns that are named so; exact where no error is given."""
        values, errors = np.full((2, self.rows, len(self.vocabulary)), np.nan)
        for token, (value, error) in self.given.items():
            column = self.vocabulary.column(token)
            values[:, column], errors[:, column] = value, np.nan_to_num(error)
        return StarTokens(values, errors)

    @property
    def has_magnitudes(self) -> bool:
        """The table has a G magnitude or flux, or spectra to synthesise it from."""
        return self.spectra is not None or self._has_photometry

    def tokens(self, start: int = 0, count: int | None = None) -> Tokens:
        """Make the tokens of some rows.

        Parameters
        ----------
        start, count
            The first row and the number of rows; by default all.

        Raises
        ------
        ReleaseError
            The number of coefficients is not the vocabulary's.
        """
        count = max(0, self.rows - start) if count is None else count
        made = self._made(start, count)
        values, errors, e_j = made.values.copy(), made.errors.copy(), made.e_j.copy()
        by_parallax = made.by_parallax.copy()
        for token, (value, error) in self.given.items():
            value, error = value[start : start + count], error[start : start + count]
            known, column = ~np.isnan(value), self.vocabulary.column(token)
            values[known, column], errors[known, column] = value[known], error[known]
            by_parallax[known, column] = token in PARALLAX_TOKENS
            if token in ("jh", "jk"):
                e_j[known] = np.nan  # which share of the error both colours have is unknown
        return replace(made, values=values, errors=errors, e_j=e_j, by_parallax=by_parallax)

    def _made(self, start: int, count: int) -> Tokens:
        """Tokens of spectra and gaia_source columns; all absent where there are none."""
        job = self.job or Job("none", inputs=())
        auxiliary = _piece(self.auxiliary, start, count)
        if self.spectra is not None:
            spectra = _piece(self.spectra, start, count)
            return from_stars(read(spectra, auxiliary, self.vocabulary), self.vocabulary, job)
        if auxiliary is None:
            auxiliary = load_contract("gaia_source").assemble({}, min(count, self.rows - start))
        stars = without_spectra(auxiliary, self.vocabulary)
        return from_stars(stars, self.vocabulary, job)


def default_job(vocabulary: Vocabulary) -> Job:
    """Return the default job, with the inputs that a vocabulary has.

    Parameters
    ----------
    vocabulary
        The model's tokens.
    """
    job = Job("table")
    return replace(job, inputs=tuple(name for name in job.inputs if name in vocabulary))


def _no_inputs(columns: TableColumns, vocabulary: Vocabulary, job: Job | None) -> ContractError:
    known, archive = (*vocabulary.names, *DERIVED), ", bp_coefficients, rp_coefficients"
    return ContractError(
        "the table has no column that the model can read",
        wanted=f"one or more of {vocabulary.summary()}, {', '.join(DERIVED)}{archive * bool(job)}",
        found=columns.summary(), where=columns.where, advice=meant(columns.names, known),
    )  # fmt: skip


@dataclass(frozen=True)
class _Roles:
    """Positions of the columns that are read.

    ``tokens`` by token: the word that the value is named by and its position. ``errors`` by
    word: that of its error. ``spectra`` and ``auxiliary`` by the contract's name.
    """

    tokens: dict[str, tuple[str, int]]
    errors: dict[str, int]
    spectra: dict[str, tuple[int, ...]]
    auxiliary: dict[str, tuple[int, ...]]

    def named(self, columns: TableColumns) -> dict[str, str]:
        """Return the names of the tokens' columns, in the table's order."""
        in_order = sorted(self.tokens.items(), key=lambda item: item[1][1])
        return {token: columns.names[position] for token, (_, position) in in_order}

    def used_and_ignored(self, columns: TableColumns) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the names of the columns that are read and of all others."""
        used = {
            *(position for _, position in self.tokens.values()),
            *self.errors.values(),
            *(position for held in self.spectra.values() for position in held),
            *(position for held in self.auxiliary.values() for position in held),
        }
        masks = columns.arrays.masks
        read: list[str] = []
        others: list[str] = []
        for position, name in enumerate(columns.names):
            names = read if position in used else others
            names += [name, masks[name]] if name in masks else [name]
        return tuple(read), tuple(others)

    @classmethod
    def of(cls, columns: TableColumns, vocabulary: Vocabulary, job: Job | None) -> _Roles:
        words = [*vocabulary.names]
        words += [
            item.name
            for item in DERIVED.values()
            if item.token in vocabulary and (job is None or item.token not in SOURCES
                                             or item.token in job.inputs)
        ]  # fmt: skip
        found = {w: i for w in words if (i := columns.position(w, "the same token")) is not None}
        tokens: dict[str, tuple[str, int]] = {}
        for word, position in found.items():
            token = word if word in vocabulary else DERIVED[word].token
            # Vocabulary names come first: a token counts before what is derived from it.
            tokens.setdefault(token, (word, position))
        errors = {}
        for token, (word, _) in tokens.items():
            for name in dict.fromkeys((token, word)):  # the error of the token counts first
                at = _error_position(columns, name)
                if at is not None:
                    errors[name] = at
                    break
        reserved = {f for w in words for f in (w, f"e_{w}", f"{w}_error")}
        spectra, auxiliary = ({}, {}) if job is None else _archive_columns(columns, job, reserved)
        return cls(tokens, errors, spectra, auxiliary)


def _error_position(columns: TableColumns, name: str) -> int | None:
    """The column of a quantity's error, None where there is none."""
    other = (published for published, token in _ERROR_OF.items() if token == name)
    names = (f"e_{name}", f"{name}_error", *other)
    found = [
        position
        for word in names
        if (position := columns.position(word, f"the error of {name}")) is not None
    ]
    if len(found) > 1:
        raise columns.twice(f"the error of {name}", found)
    return found[0] if found else None


def _archive_columns(
    columns: TableColumns, job: Job, reserved: Collection[str]
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Positions of the spectra's and of gaia_source's columns that a job reads.

    ``bp0`` is a token here, and no coefficient: reserved names are those of tokens.
    """
    kinds = ["coefficients", "coefficient_errors", "n_relevant_bases", "basis_function_id"]
    if job.correlations and job.propagation != "none":
        kinds.append("coefficient_correlations")
    contract = load_contract("xp_continuous")
    names = [
        contract[f"{band}_{kind}"]
        for band in BANDS
        if columns.holders(contract[f"{band}_coefficients"], reserved)
        for kind in kinds
    ]
    # A spectrum is read once: flux where there are no coefficients.
    names += [contract[name] for name in (("basis_id",) if names else SAMPLED)]
    spectra = {c.name: held for c in names if (held := columns.holders(c, reserved))}
    if "flux" in spectra and not {"flux_error"} <= spectra.keys():
        spectra = {}
    contract = load_contract("gaia_source")
    # E(B-V) is read as a derived token; what a parallax also needs says nothing without it.
    left_out = {"logebv", *(() if columns.holders(contract["parallax"]) else PARALLAX_TOKENS)}
    wanted = {name for token in {*job.inputs} - left_out for name in SOURCES[token]}
    wanted |= {*PHOTOMETRY}
    read = (column for column in contract.columns if column.name in wanted)
    return spectra, {column.name: held for column in read if (held := columns.holders(column))}


def _given(columns: TableColumns, roles: _Roles, token: str, vocabulary: Vocabulary) -> Measured:
    """Values and errors (N,) of a token from its columns, in the token's unit."""
    word, position = roles.tokens[token]
    derived = DERIVED.get(word) if word != token else None
    unit = derived.unit if derived else vocabulary.tokens[vocabulary.column(token)].unit
    value = columns.numbers(position, unit, LOGARITHMS.get(word, ""))
    error = np.full(len(value), np.nan)
    name = next((n for n in (token, word) if n in roles.errors), None)
    if name is not None:
        token_unit = vocabulary.tokens[vocabulary.column(token)].unit
        stated = columns.numbers(
            roles.errors[name], token_unit if name == token else unit,
            LOGARITHMS.get(name, ""), difference=True,
        )  # fmt: skip
        error = np.where(stated >= 0, stated, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        # A value with an infinite error says nothing.
        value = np.where(np.isinf(error), np.nan, value)
        if derived is not None:
            value, slope = _transformed(derived.name, value)
            error = error if name == token else error * slope
    return value, np.where(np.isnan(value), np.nan, error)


def _transformed(name: str, value: Float) -> Measured:
    """The token of a derived quantity (N,), and its derivative."""
    if name == "age":
        age = np.where(value > 0, value, np.nan)
        return np.log10(age) + GIGAYEAR, 1.0 / (age * np.log(10.0))
    token = extinction.ln_ebv(value)
    return token, np.exp(-token)


def _readable(spectra: pa.Table, where: object) -> pa.Table:
    """Return spectra with the wavelengths of sampled ones checked."""
    flux, errors, given = (spectra.column(name).combine_chunks() for name in
                           ("flux", "flux_error", "wavelength"))  # fmt: skip
    if flux.null_count == len(flux):
        return spectra
    *lists, faults = checked(flux, errors, given)
    if faults:
        row, reason = next(iter(faults.items()))
        raise ContractError(
            "a sampled spectrum cannot be read", found=f"row {row}: {reason}", where=where
        )
    for name, values in zip(SAMPLED, lists, strict=True):
        spectra = spectra.set_column(spectra.column_names.index(name), name, values)
    return spectra


def _piece(table: pa.Table | None, start: int, count: int) -> pa.Table | None:
    return None if table is None else table.slice(start, count).combine_chunks()
