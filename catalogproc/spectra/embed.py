"""Stars as vectors, the mean of the encoder's output, for neighbour search and clustering."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from catalogproc.contract import Column, Contract
from catalogproc.datasets.star_reader import RowCount, StarFiles, read_stars
from catalogproc.errors import JobError, plural
from catalogproc.io.parquet_writer import TableWriter
from catalogproc.job import Job
from catalogproc.network.bundle import Bundle
from catalogproc.network.predictor import Predictor
from catalogproc.spectra.files import list_array, model_facts

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class EmbedResult:
    """Counts of spectra.

    Attributes
    ----------
    read, written, rejected
        Spectra read; vectors written; rows that a run rejects too.
    output
        The file.
    """

    read: int
    written: int
    rejected: int
    output: Path

    def lines(self) -> list[str]:
        """Return the result as lines of text."""
        text = [
            f"{plural(self.read, 'spectrum', 'spectra')} read, "
            f"{plural(self.written, 'vector')} written to {self.output}"
        ]
        if self.rejected:
            text.append(f"{plural(self.rejected, 'row')} left out, which a run would reject too")
        return text


def contract_of(bundle: Bundle) -> Contract:
    """Return the contract of a table of vectors.

    Parameters
    ----------
    bundle
        The trained model.
    """
    words = f"mean of the encoder's output over the star's tokens, {bundle.shape.width} numbers"
    return Contract(
        "embedding", 1, f"Stars as the model {bundle.name} sees them",
        (
            Column("source_id", "int64", "Gaia source identifier", ucd="meta.id;meta.main"),
            Column("n_tokens", "int16", "tokens that the vector was made of", ucd="meta.number"),
            Column("embedding", "list<float32>", words),
        ),
    )  # fmt: skip


def embed(
    files: StarFiles,
    output: Path,
    predictor: Predictor,
    job: Job,
    progress: Progress | None = None,
) -> EmbedResult:
    """Write a Parquet table with one vector per star.

    A star's vector is ``network.transformer.summary`` of its tokens: it depends on which tokens
    there are, so compare stars with the same ones. A star without tokens has a vector of zeros.

    Parameters
    ----------
    files
        XP spectra and gaia_source tables.
    output
        A .parquet file.
    predictor
        The trained model.
    job
        Which tokens are read.
    progress
        Called with the number of stars done, 0, and an empty text.

    Raises
    ------
    JobError
        An output of another format.
    InputError
        A file cannot be read.
    """
    if output.suffix.lower() != ".parquet":
        raise JobError("vectors are written as Parquet", wanted="NAME.parquet", found=output.name,
                       where="--output")  # fmt: skip
    bundle, contract = predictor.bundle, contract_of(predictor.bundle)
    tally = RowCount()
    with TableWriter(output, contract, model_facts(bundle)) as writer:
        for good, made in read_stars(files, bundle.vocabulary, job, tally):
            vectors = predictor.summaries(made.network_inputs)
            columns = [
                good.column("source_id"),
                pa.array(np.isfinite(made.values).sum(axis=1).astype(np.int16)),
                list_array(vectors, contract["embedding"]),
            ]
            writer.write(pa.table(columns, schema=contract.arrow_schema()))
            if progress is not None:
                progress(writer.rows, 0, "")
        tally.check(writer.rows)
    return EmbedResult(tally.read, writer.rows, tally.rejected, output)
