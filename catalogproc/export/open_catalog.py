"""A finished catalog opened in Python: as Arrow, pandas or Astropy, in full or in part."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogproc.contract import Contract
from catalogproc.errors import ResumeError, plural
from catalogproc.export.catalog_html import catalog_html
from catalogproc.export.reader import Rows, ScanCache
from catalogproc.rundir.manifest import RunIdentity
from catalogproc.rundir.provenance import PROVENANCE_FILE
from catalogproc.rundir.summary import SUMMARY_FILE, read_summary
from catalogproc.rundir.sync import pull


@dataclass(frozen=True)
class Catalog:
    """The catalog of a run.

    Receipts and the footers of parts are read once, and again when a file has changed. Stars
    are read when they are requested, and only the requested columns.

    Attributes
    ----------
    folder
        The run folder.
    """

    folder: Path

    def __len__(self) -> int:
        return self._cache.current().total

    def __repr__(self) -> str:
        scan = self._cache.current()
        model, run = scan.identity.model.get("name"), scan.identity.run_id
        return f"<catalog {self.folder}: {plural(scan.total, 'star')}, model {model}, run {run}>"

    def _repr_html_(self) -> str:
        """Return a small table for notebooks: the first stars, and how many have which flag."""
        return catalog_html(self)

    def __getitem__(self, name: str | list[str]) -> Any:
        """Return a column with its unit, or a table of several, as an astropy QTable does.

        Parameters
        ----------
        name
            A column, ``stars["mass"]``: an astropy Quantity where it has a unit, else an array
            of numpy. A list of columns, ``stars[["mass", "age"]]``: an astropy Table.
        """
        if isinstance(name, str):
            column = self.to_astropy([name])[name]
            return column.value if column.unit is None else column.quantity
        if isinstance(name, list):
            return self.to_astropy(name)
        raise TypeError(f"stars[...] takes the name of a column or a list of names, not {name!r}")

    def _ipython_key_completions_(self) -> list[str]:
        return list(self.columns)

    @property
    def identity(self) -> RunIdentity:
        """Job, model and input of the run."""
        return self._cache.current().identity

    @property
    def contract(self) -> Contract:
        """Name, type, unit, UCD and description of every column."""
        return self._rows().contract

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns."""
        return self.contract.names

    @property
    def summary(self) -> dict[str, Any]:
        """Content of summary.json: counts, reasons, speed, model, versions, failures."""
        summary = read_summary(self.folder)
        if summary is None:
            raise ResumeError(
                "the run has not ended", wanted=SUMMARY_FILE, where=self.folder,
                advice="run the same command again to resume",
            )  # fmt: skip
        return summary

    @property
    def provenance(self) -> dict[str, Any]:
        """Content of provenance.json: W3C PROV with IVOA's terms, as prov.model reads it."""
        content = json.loads((self.folder / PROVENANCE_FILE).read_bytes())
        return dict(content)

    def batches(
        self, columns: Sequence[str] | None = None, where: str | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the stars in batches of at most 65,536, for catalogs of any size.

        Parameters
        ----------
        columns
            Which columns, in which order, as ``--columns``; all by default.
        where
            Which stars, as ``--where``: ``"good_mass_age and m_h > -0.5"``; all by default.
        """
        return self._rows(columns, where).batches()

    def to_arrow(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """Return a pyarrow Table; each field's metadata holds unit, UCD and description.

        Parameters
        ----------
        columns, where
            As in :meth:`batches`.
        """
        return _to_arrow(self._rows(columns, where))

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Export all columns and stars as an Arrow C stream: ``polars.DataFrame(catalog)``."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def to_pandas(self, columns: Sequence[str] | None = None, where: str | None = None) -> Any:
        """Return a pandas DataFrame. pandas has no units: see :attr:`contract`.

        Parameters
        ----------
        columns, where
            As in :meth:`batches`.
        """
        return self.to_arrow(columns, where).to_pandas()

    def to_astropy(self, columns: Sequence[str] | None = None, where: str | None = None) -> Any:
        """Return an astropy Table with units, descriptions and UCDs (``meta["ucd"]``).

        Parameters
        ----------
        columns, where
            As in :meth:`batches`.
        """
        from astropy.table import Column, Table

        rows = self._rows(columns, where)
        arrow = _to_arrow(rows)
        table_columns = [
            Column(
                _numpy(arrow.column(column.name)),
                name=column.name,
                unit=column.unit or None,
                description=column.description,
                meta={"ucd": column.ucd},
            )
            for column in rows.contract.columns
        ]
        return Table(table_columns, meta=rows.metadata)

    @cached_property
    def _cache(self) -> ScanCache:
        return ScanCache(self.folder)

    def _rows(self, columns: Sequence[str] | None = None, where: str | None = None) -> Rows:
        return self._cache.current().rows(columns, where)


def _to_arrow(rows: Rows) -> pa.Table:
    schema = rows.contract.arrow_schema(rows.metadata)
    tables = (pa.Table.from_arrays(batch.columns, schema=schema) for batch in rows.batches())
    return pa.concat_tables([schema.empty_table(), *tables])


def _numpy(column: pa.ChunkedArray) -> Any:
    if pa.types.is_string(column.type):
        return column.to_numpy().astype(str)
    return column.to_numpy()


def open_catalog(folder: str | Path) -> Catalog:
    """Open the catalog of a run, finished or not.

    Parameters
    ----------
    folder
        The run folder, or its address (s3://…).

    Raises
    ------
    ResumeError
        The folder holds no run.
    VerifyError
        A part that a receipt names is missing or has other rows than it says.

    Examples
    --------
    >>> import catalogproc
    >>> stars = catalogproc.open_catalog("output/demo")
    >>> giants = stars.to_pandas(["source_id", "mass", "age"], where="good_mass_age")
    >>> giants.columns.tolist()
    ['source_id', 'mass', 'age']
    >>> stars["mass"].unit
    Unit("solMass")
    """
    catalog = Catalog(pull(folder))
    len(catalog)
    return catalog
