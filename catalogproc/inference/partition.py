"""Rows of the catalog for a DataFrame of spectra, as LSDB's ``map_partitions`` wants them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from catalogproc.contract import load_contract
from catalogproc.inference.screening import Duplicates, screen, screen_tokens
from catalogproc.job import Job, load_job
from catalogproc.readers.gaia_source import NO_TABLES
from catalogproc.readers.memory_table import MemoryTable
from catalogproc.readers.xp import split_own, table_spectra

if TYPE_CHECKING:
    import pandas as pd

    from catalogproc.inference.engine import Engine

REJECTED = "rejected"
"""Column with the reason why a row has no predictions; null where it has."""
_NAME = Path("partition")


def map_partition(
    df: pd.DataFrame,
    *,
    model: str | Path = "default",
    job: str | Path | Job = "gaia-dr3-giants",
    device: str = "cpu",
    release: str | Path | None = None,
) -> pd.DataFrame:
    """Return the catalog of the stars in a DataFrame, row by row.

    For LSDB: ``lsdb.open_catalog(URL).map_partitions(catalogproc.map_partition)``. The numbers are
    those of ``run`` for the same spectra. The model is loaded once in each process.

    Parameters
    ----------
    df
        N rows with ``source_id`` and XP spectra, in any layout of docs/inputs.md, nested columns
        of nested-pandas among them; columns of gaia_source beside them are used too. It may be
        empty, as Dask asks for the columns of the result.
    model, job, release
        As of :func:`catalogproc.run`. A job with a dust map is refused.
    device
        Where the network runs, as torch names it.

    Returns
    -------
    DataFrame
        N rows with the index of ``df`` and the columns of the catalog (``catalogproc describe
        catalog``), of Arrow's types; ``source_id`` null where the row has none, everything else
        null where ``rejected`` says why the row has no predictions. Units and descriptions are
        those of the catalog.

    Raises
    ------
    InputError
        Columns of spectra are missing, or have another type.
    JobError, BundleError, ReleaseError
        As of :func:`catalogproc.run`.

    Examples
    --------
    >>> import pandas, catalogproc
    >>> stars = pandas.read_parquet("examples/gaia_xp/xp_continuous_000.parquet").head(3)
    >>> catalogproc.map_partition(stars)["teff"].notna().tolist()
    [True, True, True]
    """
    import pandas as pd

    engine = _engine(model, job, device, release)
    content = pa.Table.from_pandas(df, preserve_index=False)
    rows = pa.concat_tables([_schema().empty_table(), *_rows(engine, content)])
    found: pd.DataFrame = rows.to_pandas(types_mapper=pd.ArrowDtype)
    found.index = df.index
    return found


def _schema() -> pa.Schema:
    schema = load_contract("catalog").arrow_schema().remove_metadata()
    fields = [pa.field(field.name, field.type) for field in schema]
    return pa.schema([*fields, pa.field(REJECTED, pa.string())])


def _rows(engine: Engine, content: pa.Table) -> Iterator[pa.Table]:
    """Yield a row of the catalog for each row of a table."""
    vocabulary, seen = engine.bundle.vocabulary, Duplicates()
    method = engine.job.propagation_of(engine.bundle.reads_errors)
    correlations = engine.job.correlations and method in ("first_order", "sampled")
    spectra = table_spectra(
        MemoryTable(_NAME, content), correlations=correlations, release=vocabulary.data_release
    )
    for batch in spectra:
        good, rejected = screen(batch, vocabulary, seen, str(_NAME))
        tables = []
        if good.num_rows:
            plain, own = split_own(good)
            joined = None if own is None else NO_TABLES.join(good.column("source_id"), own).rows
            tokens = engine.features(plain, joined)
            readable = np.asarray(np.isfinite(tokens.values).any(axis=1))
            if not readable.all():
                files = pa.repeat(str(_NAME), len(readable))
                good, without = screen_tokens(good, readable, np.isfinite(tokens.g_flux), files)
                rejected = pa.concat_tables([rejected, without])
                plain, own = split_own(good)
                joined = None if own is None else NO_TABLES.join(good.column("source_id"), own).rows
                tokens = engine.features(plain, joined)
            output = engine.predict(tokens)
            tables.append(engine.to_catalog(good.column("source_id"), tokens, output))
        yield _in_order(batch, good, tables, rejected)


def _in_order(
    batch: pa.RecordBatch, good: pa.RecordBatch, catalog: list[pa.Table], rejected: pa.Table
) -> pa.Table:
    """Return the rows of a batch in its order: those of the catalog, nulls for rejected ones."""
    first = batch.column("row")[0].as_py() if batch.num_rows else 0
    place = np.full(batch.num_rows, -1, np.int64)
    place[good.column("row").to_numpy() - first] = np.arange(good.num_rows)
    taken = pa.array(place, mask=place < 0)
    reasons = np.full(batch.num_rows, None, dtype=object)
    reasons[rejected.column("row").to_numpy() - first] = rejected.column("reason").to_pylist()
    schema = _schema()
    whole = catalog[0] if catalog else schema.empty_table()
    columns: list[Any] = []
    for field in list(schema)[:-1]:
        column = whole.column(field.name).combine_chunks()
        columns.append(column.take(taken) if len(column) else pa.nulls(len(taken), field.type))
    columns[schema.names.index("source_id")] = batch.column("source_id")
    return pa.Table.from_arrays([*columns, pa.array(reasons, pa.string())], schema=schema)


@lru_cache(maxsize=2)
def _engine(
    model: str | Path, job: str | Path | Job, device: str, release: str | Path | None
) -> Engine:
    from catalogproc.inference.engine import Engine
    from catalogproc.network.bundle import load_bundle

    chosen = job if isinstance(job, Job) else load_job(job)
    return Engine(load_bundle(model).for_release(release), chosen, device)
