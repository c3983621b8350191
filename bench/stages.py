"""Stars per second on one core: each stage of the pipeline, and all stages without the model.

One thread is used. The time is CPU time or wall time, whichever is more, so that neither waiting
nor threads are free.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bench.kit import Kit, each_array
from bench.measure import Figures, Noted, Row, Target, Work, one_thread, seconds
from catalogproc.contract import load_contract
from catalogproc.features.tokens import Tokens
from catalogproc.inference.engine import Engine
from catalogproc.inference.process_chunk import process_chunk
from catalogproc.inference.screening import Duplicates, screen
from catalogproc.io.parquet_writer import PartWriter
from catalogproc.network.star_tokens import StarTokens
from catalogproc.readers import chunks
from catalogproc.readers.gaia_source import AuxiliaryTable, open_auxiliary
from catalogproc.readers.pieces import spectra

TITLE = "stages on one core"
PER_CORE = "stars/s per core"
PREDICTIONS = 4 * 8192
"""Number of stored predictions, more than a batch."""
ROWS = (
    Row("read", PER_CORE),
    Row("screen", PER_CORE),
    Row("match", PER_CORE),
    Row("features, spectra only", PER_CORE),
    Row("features, with gaia_source", PER_CORE),
    Row("predict, 33 tokens", PER_CORE),
    Row("rows", PER_CORE),
    Row("write", PER_CORE),
    Row("all but the model, spectra only", PER_CORE, Target(150_000)),
    Row("all but the model, with gaia_source", PER_CORE, Target(150_000)),
    Row("input a star", "bytes"),
    Row("output a star", "bytes"),
)


class StoredPredictions(Engine):
    """An engine that returns stored predictions in turn, in place of the model's."""

    stored: Any
    at = 0

    def predict(self, tokens: Tokens) -> Any:
        begin = self.at if self.at + len(tokens) <= PREDICTIONS else 0
        self.at = begin + len(tokens)
        return each_array(self.stored, lambda array: array[begin : self.at])


def stored_predictions(kit: Kit) -> StoredPredictions:
    """Return an engine with the repeated predictions of real stars.

    Noise is added to them, so that the output does not compress better than a real catalog.
    """
    engine = StoredPredictions(kit.bundle, kit.job)
    few = kit.spectra_read.slice(0, min(kit.sizes.predict, 256))
    found = kit.engine.predict(kit.engine.features(few))
    random = np.random.default_rng(0)

    def repeated(array: NDArray[Any]) -> NDArray[Any]:
        many = array[np.arange(PREDICTIONS) % few.num_rows]
        if not np.issubdtype(array.dtype, np.floating):
            return many
        noisy = many * random.normal(1.0, 0.02, many.shape)
        if many.ndim == 2 and np.allclose(many.sum(axis=1), 1.0):
            noisy /= noisy.sum(axis=1, keepdims=True)  # weights of a mixture
        return noisy.astype(array.dtype)

    engine.stored = each_array(found, repeated)
    return engine


def measure(kit: Kit) -> Figures:
    with one_thread():
        return _measure(kit)


def _measure(kit: Kit) -> Figures:
    sizes = kit.sizes

    def rate(stars: int, work: Work) -> float:
        return stars / seconds(work, sizes.repeats, sizes.budget / 2, processor=True)

    engine, vocabulary = stored_predictions(kit), kit.bundle.vocabulary
    xp, gaia = kit.simulated
    auxiliary = open_auxiliary(gaia, kit.folder / "staging")
    figures: dict[str, float | Noted] = {}

    spectra_only = _all_but_the_model(kit, engine, kit.table, None)
    figures["all but the model, spectra only"] = rate(sizes.table, spectra_only)
    size = sum(path.stat().st_size for path in (kit.folder / "without-model" / "catalog").iterdir())
    figures["output a star"] = size / sizes.table
    figures["input a star"] = kit.table.stat().st_size / sizes.table
    count = sum(chunk.rows or 0 for chunk in chunks.cut(xp, 10**9))
    with_source = _all_but_the_model(kit, engine, xp[0], auxiliary)
    figures["all but the model, with gaia_source"] = rate(
        chunks.cut(xp[:1], 10**9)[0].rows or 0, with_source
    )

    [piece] = chunks.cut([kit.table], 10**9)[0].pieces
    batches = list(spectra(piece))

    def screened() -> list[pa.RecordBatch]:
        seen = Duplicates()
        return [screen(batch, vocabulary, seen, "table")[0] for batch in batches]

    figures["read"] = rate(sizes.table, lambda: [batch.num_rows for batch in spectra(piece)])
    figures["screen"] = rate(sizes.table, screened)
    good = screened()
    found = [engine.features(batch) for batch in good]
    figures["features, spectra only"] = rate(
        sizes.table, lambda: [engine.features(batch) for batch in good]
    )
    predictions = [engine.predict(tokens) for tokens in found]
    made = [
        (batch.column("source_id"), tokens, prediction)
        for batch, tokens, prediction in zip(good, found, predictions, strict=True)
    ]
    figures["rows"] = rate(sizes.table, lambda: [engine.to_catalog(*given) for given in made])
    tables = [engine.to_catalog(*given) for given in made]
    figures["write"] = rate(sizes.table, _writing(kit.folder / "written", tables))

    few = StarTokens.typical(kit.full(max(1, sizes.predict // 4), 33))
    figures["predict, 33 tokens"] = Noted(
        rate(len(few), lambda: kit.predictor.predict(few, kit.job.labels)),
        f"{len(kit.job.labels)} labels",
    )
    good = [
        screen(batch, vocabulary, Duplicates(), "simulated")[0]
        for chunk in chunks.cut(xp, 10**9)
        for piece in chunk.pieces
        for batch in spectra(piece)
    ]
    identifiers = [batch.column("source_id") for batch in good]
    figures["match"] = rate(count, lambda: [auxiliary.match(ids) for ids in identifiers])
    pairs = [(batch, auxiliary.match(batch.column("source_id"))) for batch in good]
    figures["features, with gaia_source"] = rate(
        count, lambda: [engine.features(*pair) for pair in pairs]
    )
    return figures


def _all_but_the_model(
    kit: Kit, engine: Engine, file: Path, auxiliary: AuxiliaryTable | None
) -> Callable[[], object]:
    output = kit.folder / "without-model"
    [chunk] = chunks.cut([file], 10**9)

    def work() -> object:
        shutil.rmtree(output, ignore_errors=True)
        return process_chunk(engine, chunk, auxiliary, output)

    return work


def _writing(folder: Path, tables: list[pa.Table]) -> Callable[[], None]:
    contract = load_contract("catalog")

    def work() -> None:
        with PartWriter(folder, "part", contract) as writer:
            for table in tables:
                writer.write(table)

    return work
