"""Stars as vectors: what the encoder makes of each, for neighbours and clustering."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from catalogproc import __version__
from catalogproc.contract import Column, Contract
from catalogproc.datasets.star_reader import RowCount, StarFiles, read_stars
from catalogproc.errors import JobError
from catalogproc.io.parquet_writer import TableWriter
from catalogproc.job import Job
from catalogproc.network.bundle import Bundle
from catalogproc.network.predictor import Predictor

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Embedded:
    """Spectra that were read, and what became of them."""

    read: int
    written: int
    rejected: int
    output: Path

    def lines(self) -> list[str]:
        """For people."""
        said = [f"{self.read:,} spectra read, {self.written:,} vectors written to {self.output}"]
        if self.rejected:
            said.append(f"{self.rejected:,} rows left out, which a run would reject too")
        return said


def contract_of(bundle: Bundle) -> Contract:
    """Identifier and vector of each star."""
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
    files: Sequence[Path],
    output: Path,
    bundle: Bundle,
    job: Job,
    *,
    companion: Sequence[Path] = (),
    device: str = "cpu",
    progress: Progress | None = None,
) -> Embedded:
    """Write a Parquet table with a vector a star, of what the job reads.

    A star's vector is ``network.transformer.summary`` of it: it depends on which tokens the
    star has, so stars are best compared with others read the same way. A star of which the job
    reads nothing has a vector of zeros. Raises JobError for an output of another format,
    InputError for a file that cannot be read.
    """
    if output.suffix.lower() != ".parquet":
        raise JobError("vectors are written as Parquet", wanted="NAME.parquet", found=output.name,
                       where="--output")  # fmt: skip
    predictor, contract = Predictor(bundle, device), contract_of(bundle)
    facts = {"catalogproc": __version__, "model": bundle.name, "model_hash": bundle.hash}
    tally = RowCount()
    with TableWriter(output, contract, facts) as writer:
        for good, made in read_stars(StarFiles(files, companion), bundle.vocabulary, job, tally):
            vectors = predictor.summaries(made.values)
            offsets = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
            columns = [
                good.column("source_id"),
                pa.array(np.isfinite(made.values).sum(axis=1).astype(np.int16)),
                pa.ListArray.from_arrays(pa.array(offsets), pa.array(vectors.ravel())),
            ]
            writer.write(pa.table(columns, schema=contract.arrow_schema()))
            if progress is not None:
                progress(writer.rows, 0, "")
        tally.check(writer.rows)
    return Embedded(tally.read, writer.rows, tally.rejected, output)
