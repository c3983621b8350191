"""Each stage of the pipeline alone, and all of them but the model: stars a second on one core.

One thread each; a second is one of the processor's or of the clock, whichever were more, so
that neither waiting nor threads are free.
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
from catalogproc.readers import chunks
from catalogproc.readers.gaia_source import Companion, open_companion

TITLE = "stages on one core"
A_CORE = "stars/s a core"
ANSWERS = 4 * 8192
"""More than a batch."""
ROWS = (
    Row("read", A_CORE),
    Row("screen", A_CORE),
    Row("match", A_CORE),
    Row("features, no companion", A_CORE),
    Row("features, companion", A_CORE),
    Row("predict, 33 tokens", A_CORE),
    Row("rows", A_CORE),
    Row("write", A_CORE),
    Row("all but the model, no companion", A_CORE, Target(150_000)),
    Row("all but the model, companion", A_CORE, Target(150_000)),
    Row("input a star", "bytes"),
    Row("output a star", "bytes"),
)


class Answered(Engine):
    """An engine that has its answers and hands them out in turn: all but the model."""

    answers: Any
    at = 0

    def predict(self, tokens: Tokens) -> Any:
        begin = self.at if self.at + len(tokens) <= ANSWERS else 0
        self.at = begin + len(tokens)
        return each_array(self.answers, lambda array: array[begin : self.at])


def answered(kit: Kit) -> Answered:
    """With the answers of a few real stars, multiplied; no two alike, lest they pack well."""
    engine = Answered(kit.bundle, kit.job)
    few = kit.spectra_read.slice(0, min(kit.sizes.predict, 256))
    found = kit.engine.predict(kit.engine.features(few))
    random = np.random.default_rng(0)

    def multiplied(array: NDArray[Any]) -> NDArray[Any]:
        many = array[np.arange(ANSWERS) % few.num_rows]
        if not np.issubdtype(array.dtype, np.floating):
            return many
        return (many * random.normal(1.0, 0.02, many.shape)).astype(array.dtype)

    engine.answers = each_array(found, multiplied)
    return engine


def measure(kit: Kit) -> Figures:
    with one_thread():
        return _measure(kit)


def _measure(kit: Kit) -> Figures:
    sizes = kit.sizes

    def rate(stars: int, work: Work) -> float:
        return stars / seconds(work, sizes.repeats, sizes.budget / 2, processor=True)

    engine, vocabulary = answered(kit), kit.bundle.vocabulary
    xp, gaia = kit.simulated
    companion = open_companion(gaia, kit.folder / "staging")
    figures: dict[str, float | Noted] = {}

    whole = _all_but_the_model(kit, engine, kit.table, None)
    figures["all but the model, no companion"] = rate(sizes.table, whole)
    size = sum(path.stat().st_size for path in (kit.folder / "alone" / "catalog").iterdir())
    figures["output a star"] = size / sizes.table
    figures["input a star"] = kit.table.stat().st_size / sizes.table
    count = sum(chunk.rows or 0 for chunk in chunks.cut(xp, 10**9))
    beside = _all_but_the_model(kit, engine, xp[0], companion)
    figures["all but the model, companion"] = rate(chunks.cut(xp[:1], 10**9)[0].rows or 0, beside)

    [chunk] = chunks.cut([kit.table], 10**9)
    batches = list(chunks.spectra(chunk))

    def screened() -> list[pa.RecordBatch]:
        seen = Duplicates()
        return [screen(batch, vocabulary, seen, "table")[0] for batch in batches]

    figures["read"] = rate(sizes.table, lambda: [batch.num_rows for batch in chunks.spectra(chunk)])
    figures["screen"] = rate(sizes.table, screened)
    good = screened()
    found = [engine.features(batch) for batch in good]
    figures["features, no companion"] = rate(
        sizes.table, lambda: [engine.features(batch) for batch in good]
    )
    answers = [engine.predict(tokens) for tokens in found]
    made = [
        (batch.column("source_id"), tokens, answer)
        for batch, tokens, answer in zip(good, found, answers, strict=True)
    ]
    figures["rows"] = rate(sizes.table, lambda: [engine.to_catalog(*given) for given in made])
    tables = [engine.to_catalog(*given) for given in made]
    figures["write"] = rate(sizes.table, _writing(kit.folder / "written", tables))

    few = kit.full(max(1, sizes.predict // 4), 33)
    figures["predict, 33 tokens"] = Noted(
        rate(len(few), lambda: kit.predictor.predict(few, kit.job.labels)),
        f"{len(kit.job.labels)} labels",
    )
    spectra = [
        screen(batch, vocabulary, Duplicates(), "simulated")[0]
        for chunk in chunks.cut(xp, 10**9)
        for batch in chunks.spectra(chunk)
    ]
    identifiers = [batch.column("source_id") for batch in spectra]
    figures["match"] = rate(count, lambda: [companion.match(ids) for ids in identifiers])
    pairs = [(batch, companion.match(batch.column("source_id"))) for batch in spectra]
    figures["features, companion"] = rate(count, lambda: [engine.features(*pair) for pair in pairs])
    return figures


def _all_but_the_model(
    kit: Kit, engine: Engine, file: Path, companion: Companion | None
) -> Callable[[], object]:
    output = kit.folder / "alone"
    [chunk] = chunks.cut([file], 10**9)

    def work() -> object:
        shutil.rmtree(output, ignore_errors=True)
        return process_chunk(engine, chunk, companion, output)

    return work


def _writing(folder: Path, tables: list[pa.Table]) -> Callable[[], None]:
    contract = load_contract("catalog")

    def work() -> None:
        with PartWriter(folder, "part", contract) as writer:
            for table in tables:
                writer.write(table)

    return work
