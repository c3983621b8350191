"""Table contracts: the single source of a column's name, type, unit, UCD and description.

Contracts are declared in schemas/*.toml. Arrow schemas, FITS cards, VOTable FIELDs, checks and
documentation are all made from them, so that no column is described twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalogproc.declaration import check_types, declared_tables, read_declaration
from catalogproc.errors import ContractError, did_you_mean
from catalogproc.resources import shipped

_ARROW: dict[str, pa.DataType] = {
    "int64": pa.int64(),
    "int32": pa.int32(),
    "int16": pa.int16(),
    "float64": pa.float64(),
    "float32": pa.float32(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "list<float32>": pa.list_(pa.float32()),
    "list<float64>": pa.list_(pa.float64()),
}


@dataclass(frozen=True)
class Column:
    """One column of a contract.

    Attributes
    ----------
    name, type, description, unit, ucd
        As the files show them; ``type`` is a key of the Arrow types above.
    required
        The column must be present in a table of this contract.
    nullable
        The column may hold nulls.
    minimum, maximum
        Inclusive limits of the values; NaN and null are not compared with them.
    also
        Other names, in small letters, under which an input column of this meaning is read.
    """

    name: str
    type: str
    description: str
    unit: str = ""
    ucd: str = ""
    required: bool = True
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    also: tuple[str, ...] = ()

    @property
    def arrow_type(self) -> pa.DataType:
        return _ARROW[self.type]

    def arrow_field(self) -> pa.Field:
        """Return the Arrow field, with unit, UCD and description as its metadata."""
        stated = {"unit": self.unit, "ucd": self.ucd, "description": self.description}
        return pa.field(
            self.name,
            self.arrow_type,
            nullable=self.nullable,
            metadata={key: value for key, value in stated.items() if value},
        )

    def null_value(self) -> Any:
        """Return the value that means "unknown" in a column that cannot hold nulls."""
        if self.type.startswith("float"):
            return float("nan")
        return {"bool": False, "string": ""}.get(self.type, 0)


@dataclass(frozen=True)
class Contract:
    """A named, versioned list of columns."""

    name: str
    version: int
    description: str
    columns: tuple[Column, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @cached_property
    def _by_name(self) -> dict[str, Column]:
        return {column.name: column for column in self.columns}

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Column:
        try:
            return self._by_name[name]
        except KeyError:
            raise ContractError(
                f"no such column in the contract {self.name}",
                wanted=", ".join(self.names),
                found=name,
                advice=did_you_mean(name, self.names),
            ) from None

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.required)

    def arrow_schema(self, metadata: Mapping[str, str] | None = None) -> pa.Schema:
        """Return the Arrow schema, every column with its unit, UCD and description.

        Parameters
        ----------
        metadata
            Additional key-value pairs of the schema.
        """
        stated = {"contract": self.name, "contract_version": str(self.version)}
        return pa.schema(self._fields, metadata=stated | dict(metadata or {}))

    @cached_property
    def _fields(self) -> list[pa.Field]:
        return [column.arrow_field() for column in self.columns]

    def check(self, table: pa.Table, where: object = None) -> None:
        """Check that a table holds exactly this contract.

        Parameters
        ----------
        table
            The table; names and their order, types, nulls and ranges are checked. NaN passes
            any range.
        where
            The table's place, for messages.

        Raises
        ------
        ContractError
            The table differs from the contract.
        """
        if tuple(table.column_names) != self.names:
            missing = [name for name in self.names if name not in table.column_names]
            extra = [name for name in table.column_names if name not in self]
            raise ContractError(
                f"the table's columns are not those of {self.name}",
                wanted=", ".join(self.names),
                found=f"missing {missing or 'none'}, unknown {extra or 'none'}",
                where=where,
            )
        for column in self.columns:
            self._check_column(column, table.column(column.name), where)

    def _check_column(self, column: Column, values: pa.ChunkedArray, where: object) -> None:
        at = column.name if where is None else f"{where}, column {column.name}"
        if values.type != column.arrow_type:
            raise ContractError(
                f"wrong type in {self.name}", wanted=column.type, found=values.type, where=at
            )
        if values.null_count and not column.nullable:
            raise ContractError(
                f"nulls in {self.name}", wanted="none", found=values.null_count, where=at
            )
        if column.minimum is None and column.maximum is None:
            return
        ends = pc.min_max(values)  # without NaN
        for limit, beyond, word, end in (
            (column.minimum, pc.less, "at least", ends["min"]),
            (column.maximum, pc.greater, "at most", ends["max"]),
        ):
            if limit is None:
                continue
            allowed = pa.scalar(limit).cast(values.type)
            if beyond(end, allowed).as_py():
                raise ContractError(
                    f"values out of range in {self.name}",
                    wanted=f"{word} {limit:g}",
                    found=f"{pc.sum(beyond(values, allowed))} rows beyond it",
                    where=at,
                )

    def assemble(self, values: Mapping[str, Any], rows: int) -> pa.Table:
        """Build a table of this contract from arrays.

        Parameters
        ----------
        values
            Arrays (rows,) by column name. A column that is absent is filled with null, or
            with :meth:`Column.null_value`.
        rows
            Number of rows.

        Raises
        ------
        ContractError
            A name that the contract does not have.
        """
        unknown = [name for name in values if name not in self]
        if unknown:
            raise ContractError(f"columns that {self.name} does not have", found=unknown)
        arrays = []
        for column in self.columns:
            if column.name not in values:
                filler = None if column.nullable else column.null_value()
                given: Any = pa.repeat(pa.scalar(filler, column.arrow_type), rows)
            else:
                given = values[column.name]
            arrays.append(_as_arrow(given, column))
        return pa.Table.from_arrays(arrays, schema=self.arrow_schema())

    def votable_metadata(self) -> dict[str, dict[str, str]]:
        """Return unit, UCD and description by column, as VOTable FIELD attributes."""
        return {
            column.name: {
                "unit": column.unit,
                "ucd": column.ucd,
                "description": column.description,
            }
            for column in self.columns
        }

    def fits_cards(self, number: int, name: str) -> list[tuple[str, str, str]]:
        """Return the FITS cards TCOMM and TUCD of a column, which astropy does not write.

        Parameters
        ----------
        number
            The column's position in the FITS table, from 1.
        name
            The column's name in the contract.

        Returns
        -------
        list of (str, str, str)
            Keyword, value and comment of each card.
        """
        column = self[name]
        cards = [(f"TCOMM{number}", column.description, "")]
        if column.ucd:
            cards.append((f"TUCD{number}", column.ucd, ""))
        return cards

    def markdown(self) -> str:
        """Return the columns as a Markdown table, for the documentation."""
        aliases = any(column.also for column in self.columns)
        head = ["column", "type", "unit", "UCD", "meaning", *(["also read as"] if aliases else [])]
        lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        for column in self.columns:
            cells = [f"`{column.name}`", column.type, column.unit or "-", column.ucd or "-"]
            cells.append(column.description)
            if aliases:
                cells.append(", ".join(f"`{name}`" for name in column.also) or "-")
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)


def _as_arrow(values: Any, column: Column) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if not isinstance(values, pa.Array):
        # Without a type, Python integers could pass through a float and lose digits.
        given = None if isinstance(values, np.ndarray) else column.arrow_type
        values = pa.array(values, type=given)
    return values if values.type == column.arrow_type else values.cast(column.arrow_type)


@cache
def load_contract(name: str) -> Contract:
    """Load a shipped contract.

    Parameters
    ----------
    name
        The contract is declared in schemas/<name>.toml.

    Raises
    ------
    ContractError
        No such file, or a column that lacks a name, type or description, or has a key or
        a type that contracts do not know.

    Examples
    --------
    >>> import catalogproc
    >>> column = catalogproc.load_contract("catalog")["mass"]
    >>> column.unit, column.description
    ('solMass', 'present stellar mass')
    """
    path = shipped("schemas") / f"{name}.toml"
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.toml"))
        raise ContractError("no such contract", wanted=", ".join(known), found=name)
    return declared_contract(path)


def declared_contract(path: Path) -> Contract:
    """Load the contract that a TOML file declares.

    Parameters
    ----------
    path
        The file; its stem is the contract's name.

    Raises
    ------
    ContractError
        The file cannot be read, or declares no contract.
    """
    declared = read_declaration(path)
    columns = []
    for row in declared_tables(declared, "column", path):
        try:
            column = Column(**row | {"also": tuple(row.get("also", ()))})
        except TypeError as error:
            raise ContractError(f"a column is declared wrongly: {error}", where=path) from None
        check_types(column, path)
        if column.type not in _ARROW:
            raise ContractError(
                "unknown column type", wanted=", ".join(_ARROW), found=column.type, where=path
            )
        columns.append(column)
    if len({column.name for column in columns}) != len(columns):
        raise ContractError("a column is declared twice", where=path)
    version, description = declared.get("version"), declared.get("description")
    if type(version) is not int or not isinstance(description, str):
        raise ContractError(
            "a contract needs a version, a whole number, and a description",
            found=f"{version!r} and {description!r}", where=path,
        )  # fmt: skip
    return Contract(path.stem, version, description, tuple(columns))
