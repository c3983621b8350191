"""The part of a posterior against that of the catalog: the same stars in the same order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalogproc.contract import load_contract
from catalogproc.errors import CatalogprocError, plural
from catalogproc.rundir.manifest import POSTERIOR

if TYPE_CHECKING:
    from catalogproc.rundir.receipts import Receipt

BATCH = 65_536


def check_posterior(folder: Path, receipt: Receipt) -> list[str]:
    """Return what is wrong with the posterior of a chunk.

    Parameters
    ----------
    folder
        The run folder.
    receipt
        The chunk's receipt, which names a posterior.
    """
    name, contract = receipt.posterior_part, load_contract(POSTERIOR)
    try:
        with (
            pq.ParquetFile(folder / name) as file,
            pq.ParquetFile(folder / receipt.catalog_part) as catalog,
        ):
            stars = catalog.iter_batches(BATCH, columns=["source_id"])
            rows, lengths = 0, set[int]()
            for batch in file.iter_batches(BATCH):
                contract.check(pa.Table.from_batches([batch]), where=name)
                for column in contract.names[1:]:
                    lengths |= set(
                        pc.unique(pc.list_value_length(batch.column(column))).to_pylist()
                    )
                same = next(stars, None)
                if same is None or not batch.column("source_id").equals(same.column("source_id")):
                    return [f"{name} has other stars than {receipt.catalog_part} from row {rows}"]
                rows += batch.num_rows
    except CatalogprocError as error:
        return [" ".join(str(error).split())]
    except (OSError, pa.ArrowException) as error:
        return [f"{name} is no Parquet file that can be read: {error}"]
    findings = []
    if rows != receipt.rows_written:
        findings.append(
            f"{name} has {plural(rows, 'row')}, its receipt says {receipt.rows_written}"
        )
    if len(lengths) > 1:
        findings.append(f"{name} has lists of {sorted(lengths)} values")
    return findings
