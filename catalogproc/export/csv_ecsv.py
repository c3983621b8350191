"""CSV, and ECSV with units and descriptions, written as streams.

ECSV is version 1.0 of Astropy's Enhanced Character Separated Values (Aldcroft, APE 6): YAML
in comments above a CSV table. An unknown float (NaN) is an empty field in CSV, which every
reader takes for null, and NaN in ECSV, which has types. Floats have the fewest digits that
give the same float when read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from catalogproc.contract import Column, Contract
from catalogproc.errors import ContractError
from catalogproc.io.atomic import AtomicFile


def write_csv(file: AtomicFile, contract: Contract, batches: Iterable[pa.RecordBatch]) -> None:
    """Write rows as comma-separated values under a line of names (RFC 4180).

    Parameters
    ----------
    file
        Where to write.
    contract
        The columns, in order.
    batches
        The rows.
    """
    _write(file, contract, (_plain(batch) for batch in batches))


def write_ecsv(
    file: AtomicFile,
    contract: Contract,
    batches: Iterable[pa.RecordBatch],
    *,
    facts: Mapping[str, str],
) -> None:
    """Write rows as ECSV: name, type, unit, UCD and description of each column, then CSV.

    Parameters
    ----------
    file
        Where to write.
    contract
        The columns, in order.
    batches
        The rows.
    facts
        Statements about the origin of the table; they become its ``meta``.
    """
    file.write(_ecsv_header(contract, facts).encode())
    _write(file, contract, (_typed(batch) for batch in batches))


def _write(file: AtomicFile, contract: Contract, batches: Iterable[pa.RecordBatch]) -> None:
    file.write((",".join(contract.names) + "\n").encode())
    # Arrow quotes all strings or none. NaN and True are strings here and must not be quoted.
    options = csv.WriteOptions(include_header=False, quoting_style="none")
    for batch in batches:
        try:
            csv.write_csv(batch, file, write_options=options)
        except pa.ArrowInvalid as error:
            raise ContractError(
                "a text with a comma, quote or line break cannot be written as CSV", found=error,
                where=file.path,
                advice="choose other columns, or another format",
            ) from None  # fmt: skip


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Replace NaN by null, which becomes an empty field."""
    arrays = [
        pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        if pa.types.is_floating(column.type)
        else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


def _typed(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Replace NaN and booleans by the words NaN, True and False, as Python and Java read them."""
    arrays = []
    for column in batch.columns:
        if pa.types.is_floating(column.type):
            if pc.any(pc.is_nan(column)).as_py():
                column = pc.if_else(pc.is_nan(column), "NaN", column.cast(pa.string()))
        elif pa.types.is_boolean(column.type):
            column = pc.if_else(column, "True", "False")
        arrays.append(column)
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


def _ecsv_header(contract: Contract, facts: Mapping[str, str]) -> str:
    lines = ["%ECSV 1.0", "---", "delimiter: ','", "datatype:"]
    lines += [f"- {_described(column)}" for column in contract.columns]
    meta = {"description": contract.description} | dict(facts)
    lines += ["meta: !!omap", *(f"- {_flow({name: text})}" for name, text in meta.items())]
    lines.append("schema: astropy-2.0")
    return "".join(f"# {line}\n" for line in lines)


def _described(column: Column) -> str:
    properties = {"name": column.name, "unit": column.unit, "datatype": column.type}
    properties |= {"description": column.description}
    present = {name: text for name, text in properties.items() if text}
    meta = f", meta: !!omap [{_flow({'ucd': column.ucd})}]" if column.ucd else ""
    return f"{_flow(present)[:-1]}{meta}}}"


def _flow(content: Mapping[str, str]) -> str:
    """Write a mapping in YAML's flow style; JSON strings are valid YAML."""
    items = (f"{name}: {json.dumps(text)}" for name, text in content.items())
    return "{" + ", ".join(items) + "}"
