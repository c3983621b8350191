"""The training prior of a bundle: a table of stars with true labels and the model's predictions.

A network states the posterior under the distribution of the stars that it was trained on. The
table (schemas/prior.toml) holds stars of this distribution, which the network has not seen: their
labels are the prior, and their predictions say what the network makes of a star of given labels.
"""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from catalogproc.contract import load_contract
from catalogproc.errors import BundleError

PRIOR = "prior.parquet"


def prior_bytes(table: pa.Table) -> bytes:
    """Return the content of the file.

    Parameters
    ----------
    table
        Rows of the contract prior.
    """
    load_contract("prior").check(table, where=PRIOR)
    sink = io.BytesIO()
    floats = {
        field.name: "BYTE_STREAM_SPLIT" for field in table.schema if field.type == pa.float32()
    }
    pq.write_table(
        table, sink, compression="zstd", use_dictionary=False, column_encoding=floats
    )  # fmt: skip
    return sink.getvalue()


def prior_table(content: bytes, where: object) -> pa.Table:
    """Return the table that :func:`prior_bytes` wrote.

    Parameters
    ----------
    content
        The content of the file.
    where
        The file, for messages.

    Raises
    ------
    BundleError
        It is no such file.
    ContractError
        Its columns are not those of the contract.
    """
    try:
        table = pq.read_table(io.BytesIO(content))
    except (OSError, pa.ArrowException) as error:
        raise BundleError("the training prior cannot be read", found=error, where=where) from None
    load_contract("prior").check(table, where=where)
    return table
