"""Where the columns of XP spectra stand in a file, and how its rows become rows of the contract."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.contract import load_contract
from catalogproc.errors import InputError
from catalogproc.readers import coerce
from catalogproc.readers.arrow_lists import scaled
from catalogproc.readers.auxiliary_rows import UsedColumn, own_columns, read_column
from catalogproc.readers.column_lookup import check_identifier, check_type, meant, shortened
from catalogproc.readers.formats import Rows, Table
from catalogproc.readers.joined_rows import FAULT
from catalogproc.readers.units import unit_factor
from catalogproc.readers.xp_columns import array_columns
from catalogproc.readers.xp_sampled import checked, wavelengths_beside
from catalogproc.release import Release

SAMPLED = ("wavelength", "flux", "flux_error")
"""Columns of sampled spectra; they are read where the file has no coefficients. Wavelengths are
null where they are the archive's (xp_sampled.py)."""

OCCASIONAL = ("basis_id", *SAMPLED, "bp_basis_function_id", "rp_basis_function_id")
"""Columns of the contract that batches have only where the file has them."""

_NO_SPECTRA = (
    "a table without spectra is read by --gaia-source, or by catalogproc infer; catalogproc "
    "describe FILE says what it is"
)


@dataclass(frozen=True)
class Layout:
    """Which columns of a file hold each of ours; several where each holds one element.

    ``factors`` convert the units that the file states to the contract's, by our columns.
    ``wavelengths`` of sampled spectra stand in a file of their own.
    """

    holders: Mapping[str, tuple[str, ...]]
    factors: Mapping[str, float]
    schema: pa.Schema
    own: tuple[UsedColumn, ...] = ()
    wavelengths: NDArray[np.float64] | None = None

    @property
    def sampled(self) -> bool:
        """The spectra are flux over wavelength."""
        return "flux" in self.holders

    @property
    def read(self) -> list[pa.Field]:
        """Our columns that are read of the file."""
        contract = load_contract("xp_continuous")
        return [pa.field(name, contract[name].arrow_type) for name in self.holders]

    def _checked(
        self, arrays: Mapping[str, pa.Array], faults: dict[int, list[str]]
    ) -> list[pa.Array]:
        """Wavelengths, flux and errors that can be read; faults are added."""
        given = arrays.get("wavelength", self.wavelengths)
        *lists, wrong = checked(arrays["flux"], arrays["flux_error"], given)
        for row, fault in wrong.items():
            faults.setdefault(row, []).append(fault)
        return lists if "wavelength" in self.schema.names else lists[1:]

    @property
    def names(self) -> list[str]:
        """All columns of the file that are needed."""
        spectra = [name for holders in self.holders.values() for name in holders]
        return [*spectra, *(column.stored for column in self.own)]

    def conform(self, part: Rows) -> pa.RecordBatch:
        """Rows as the file has them, as rows of our contract."""
        held = dict(zip(self.names, part.columns.columns, strict=True))
        count = len(part.columns)
        faults = {} if part.fault is None else _faults_before(part.fault)
        arrays = []
        for field in self.read:
            found = [held[name] for name in self.holders[field.name]]
            array, bad = _read(field, found, count)
            arrays.append(scaled(array, self.factors.get(field.name, 1.0)))
            for row, fault in _fault_texts(field, found, np.flatnonzero(bad)):
                faults.setdefault(row, []).append(fault)
        if self.sampled:
            made = dict(zip(self.holders, arrays, strict=True))
            arrays = [array for name, array in made.items() if name not in SAMPLED]
            arrays += self._checked(made, faults)
        arrays.append(pa.array(np.arange(part.first, part.first + count), pa.int64()))
        arrays.append(_joined(faults, count))
        if self.own:
            arrays += self._own(held, count)
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _own(self, held: Mapping[str, pa.Array], count: int) -> Iterator[pa.Array]:
        """The columns that stand beside the spectra, then the names of those with faults."""
        faults: dict[int, list[str]] = {}
        for column in self.own:
            array, bad = read_column(column, held[column.stored])
            for row in np.flatnonzero(bad):
                faults.setdefault(int(row), []).append(column.name)
            yield array
        yield _joined(faults, count, ";")


def _faults_before(fault: pa.Array) -> dict[int, list[str]]:
    return {row: [text] for row, text in enumerate(fault.to_pylist()) if text is not None}


def _joined(faults: Mapping[int, list[str]], count: int, between: str = "; ") -> pa.Array:
    if not faults:
        return pa.nulls(count, pa.string())
    return pa.array([between.join(faults[row]) if row in faults else None for row in range(count)])


def _fault_texts(
    field: pa.Field, found: list[pa.Array], bad: NDArray[np.int64]
) -> Iterator[tuple[int, str]]:
    """For each row that could not be read: its number in the batch, and the fault in words."""
    if not len(bad):
        return
    wanted = "numbers" if pa.types.is_list(field.type) else "an integer"
    shown = coerce.samples(found[0], bad) if len(found) == 1 else ["something else"] * len(bad)
    for row, sample in zip(bad, shown, strict=True):
        yield int(row), f"{field.name}: wanted {wanted}, found {sample}"


def _read(field: pa.Field, found: list[pa.Array], count: int) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Our column from those that hold it, and which rows could not be read."""
    if not found:
        return pa.nulls(count, field.type), np.zeros(count, bool)
    if pa.types.is_string(field.type):
        return coerce.words(found[0]), np.zeros(count, bool)
    if not pa.types.is_list(field.type):
        if field.name == "source_id":
            return coerce.identifiers(found[0])
        return coerce.numbers(found[0], field.type)
    if len(found) > 1:
        return coerce.gathered(found, field.type.value_type)
    if field.name.endswith("correlations"):
        return coerce.triangles(found[0], field.type.value_type)
    return coerce.lists(found[0], field.type.value_type)


def _other_names(
    unused: Set[str], missing: Sequence[str], holders: Mapping[str, tuple[str, ...]]
) -> str:
    """Return advice on columns that are missing; a later release may call them otherwise."""
    near = meant(unused, missing)
    if near is None and not any(held for name, held in holders.items() if "_coeff" in name):
        return _NO_SPECTRA
    named = (
        f"where a release calls it otherwise: [columns.xp_continuous_mean_spectrum] {missing[0]} = "
        '"ITS NAME" in a file for --release'
    )
    return named if near is None else f"{near}; {named}"


def layout_of(table: Table, correlations: bool, own: bool, release: Release | None) -> Layout:
    """Find our columns among the file's. Raises InputError for what is missing or of no use."""
    contract = load_contract("xp_continuous")
    holders: dict[str, tuple[str, ...]] = {}
    fields: list[pa.Field] = []
    missing: list[str] = []
    for column in contract.columns:
        if column.name.endswith("correlations") and not correlations:
            continue
        called = None if release is None else release.column(column.name)
        found = array_columns(table, column, called)
        if column.name in OCCASIONAL and (not found or (missing == [] and column.name in SAMPLED)):
            continue
        fields.append(pa.field(column.name, column.arrow_type))
        holders[column.name] = found
        if column.required and not found:
            missing.append(column.name)
    sampled = {"flux", "flux_error"} <= holders.keys()
    if missing and not (sampled and all("_coefficient" in name for name in missing)):
        raise InputError(
            "columns are missing: these are no XP spectra",
            wanted=", ".join(missing),
            found=shortened(table.types),
            where=table.path,
            advice=_other_names(set(table.types).difference(*holders.values()), missing, holders),
        )
    for name, held in holders.items():
        for holder in held:
            _check_type(table, name, holder, single=len(held) == 1)
    fields += [pa.field("row", pa.int64()), pa.field("fault", pa.string())]
    apart = wavelengths_beside(table.path) if sampled and "wavelength" not in holders else None
    if apart is not None:
        fields.insert(-4, pa.field("wavelength", pa.list_(pa.float64())))
    taken = [name for held in holders.values() for name in held]
    beside = own_columns(table, release, taken) if own else ()
    if beside:
        columns = load_contract("gaia_source")
        fields += [pa.field(column.name, columns[column.name].arrow_type) for column in beside]
        fields.append(pa.field(FAULT, pa.string()))
    return Layout(holders, _factors(table, holders), pa.schema(fields), beside, apart)


def _factors(table: Table, holders: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
    """Factors from the stated units to the contract's. Raises InputError where there is none."""
    factors = {}
    for column in load_contract("xp_continuous").columns:
        if column.unit:
            found = {
                unit_factor(table.units.get(name, ""), column.unit, f"{table.path}, column {name}")
                for name in holders.get(column.name, ())
            }
            if len(found) > 1:
                stated = {table.units.get(name, "") for name in holders[column.name]}
                raise InputError(
                    f"the columns of {column.name} have different units",
                    wanted=f"one unit for all of them, such as {column.unit}",
                    found=", ".join(unit or "no unit" for unit in sorted(stated)),
                    where=table.path,
                )
            factors[column.name] = next(iter(found), None) or 1.0
    return factors


def _check_type(table: Table, name: str, holder: str, single: bool) -> None:
    kind = table.types[holder]
    if name == "source_id":
        check_identifier(table, holder)
    elif name == "basis_id":
        check_type(table, holder, "text", coerce.is_text(kind) or pa.types.is_null(kind))
    elif name.endswith(("n_relevant_bases", "basis_function_id")) or not single:
        good = coerce.is_number(kind) or coerce.is_text(kind)
        check_type(table, holder, "a number", good)
    else:
        good = coerce.is_list(kind) or coerce.is_text(kind) or pa.types.is_null(kind)
        check_type(table, holder, "a list of numbers, or text that writes one out", good)
