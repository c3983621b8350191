"""A finished catalog, open in Python: as Arrow, pandas or Astropy, whole or in part."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogproc.contract import Contract
from catalogproc.errors import ResumeError
from catalogproc.export.reader import Rows, open_rows
from catalogproc.rundir.manifest import RunIdentity, read_identity
from catalogproc.rundir.provenance import SUMMARY_FILE, read_summary
from catalogproc.rundir.sync import at_hand


@dataclass(frozen=True)
class Catalog:
    """The catalog of a run.

    ``columns`` and ``where`` in its methods mean what ``--columns`` and ``--where`` mean on
    the command line: which columns, in which order, and a condition on the stars. Nothing is
    read before it is asked for, and nothing but what is asked for.

    Attributes
    ----------
    folder
        The output folder of the run.
    """

    folder: Path

    def __len__(self) -> int:
        return self._rows().count

    def __repr__(self) -> str:
        model, run = self.identity.model.get("name"), self.identity.run_id
        return f"<catalog {self.folder}: {len(self):,} stars, model {model}, run {run}>"

    @cached_property
    def identity(self) -> RunIdentity:
        """Job, model and input of the run."""
        return read_identity(self.folder)

    @property
    def contract(self) -> Contract:
        """Name, type, unit, UCD and description of every column."""
        return self._rows().contract

    @property
    def columns(self) -> tuple[str, ...]:
        return self.contract.names

    @property
    def summary(self) -> dict[str, Any]:
        """What summary.json says: counts, reasons, speed, model, versions, failures."""
        found = read_summary(self.folder)
        if found is None:
            raise ResumeError(
                "the run has not ended", wanted=SUMMARY_FILE, where=self.folder,
                advice="give the run's command again: it goes on where it stopped",
            )  # fmt: skip
        return found

    @property
    def provenance(self) -> dict[str, Any]:
        """provenance.json: W3C PROV with IVOA's terms, as prov.model reads it."""
        content = json.loads((self.folder / "provenance.json").read_bytes())
        return dict(content)

    def batches(
        self, columns: Sequence[str] | None = None, where: str | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The stars in batches of at most 65,536, for catalogs of any size."""
        return self._rows(columns, where).batches()

    def to_arrow(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """A pyarrow Table; each field's metadata holds unit, UCD and description."""
        rows = self._rows(columns, where)
        schema = rows.contract.arrow_schema(rows.words)
        arrays = (pa.Table.from_arrays(batch.columns, schema=schema) for batch in rows.batches())
        return pa.concat_tables([schema.empty_table(), *arrays])

    def to_pandas(self, columns: Sequence[str] | None = None, where: str | None = None) -> Any:
        """A pandas DataFrame; source_id is int64. pandas knows no units: see ``contract``."""
        return self.to_arrow(columns, where).to_pandas()

    def to_astropy(self, columns: Sequence[str] | None = None, where: str | None = None) -> Any:
        """An astropy Table with units, descriptions and UCDs (``table[name].meta["ucd"]``)."""
        from astropy.table import Column, Table

        rows = self._rows(columns, where)
        found = self.to_arrow(columns, where)
        made = [
            Column(
                _numpy(found.column(column.name)),
                name=column.name,
                unit=column.unit or None,
                description=column.description,
                meta={"ucd": column.ucd},
            )
            for column in rows.contract.columns
        ]
        return Table(made, meta=rows.words)

    def _rows(self, columns: Sequence[str] | None = None, where: str | None = None) -> Rows:
        return open_rows(self.folder, columns, where)


def _numpy(column: pa.ChunkedArray) -> Any:
    if pa.types.is_string(column.type):
        return column.to_numpy().astype(str)
    return column.to_numpy()


def open_catalog(folder: str | Path) -> Catalog:
    """Open the catalog of a run, finished or not.

    Parameters
    ----------
    folder
        The output folder of the run, or its address (s3://…).

    Raises
    ------
    ResumeError
        The folder holds no run.
    VerifyError
        A part that a receipt names is missing or has other rows than it says.

    Examples
    --------
    >>> import catalogproc
    >>> stars = catalogproc.open_catalog("output/demo")            # doctest: +SKIP
    >>> stars.to_pandas(["source_id", "mass", "age"], where="good_mass_age")  # doctest: +SKIP
    """
    catalog = Catalog(at_hand(folder))
    len(catalog)
    return catalog
