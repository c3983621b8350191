"""The model, the stars and the files that the rows work on; made when they are first needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from bench.machine import ROOT
from catalogproc.contract import load_contract
from catalogproc.inference.engine import Engine
from catalogproc.inference.screening import Duplicates, screen
from catalogproc.io.parquet_writer import parquet_writer
from catalogproc.job import Job, load_job
from catalogproc.network.bundle import Bundle, load_bundle
from catalogproc.network.bundle_writer import BundleContent, write_bundle
from catalogproc.network.predictor import Predictor
from catalogproc.network.transformer import Shape, Transformer
from catalogproc.readers.xp import read_spectra
from catalogproc.vocabulary import BANDS

EXAMPLES = ROOT / "examples" / "gaia_xp"
FIVE = ("teff", "logg", "m_h", "mass", "log_age")


@dataclass(frozen=True)
class Sizes:
    """How much each family works on, in stars unless told."""

    repeats: int = 5
    budget: float = 20.0  # seconds that one figure may take, about
    predict: int = 1024
    exact: int = 1000
    table: int = 50_000  # a chunk, unless the job says otherwise
    run: int = 12_000  # or more, where the model is fast
    convert: int = 2_000
    parser: int = 200
    simulate: int = 8_192
    batch: int = 256
    steps: int = 6
    gpu: int = 1_000_000


TINY = Sizes(
    repeats=2, budget=0.2, predict=48, exact=20, table=300, run=120, convert=40, parser=8,
    simulate=64, batch=16, steps=3, gpu=512,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Kit:
    """What a bench works with.

    Parameters
    ----------
    folder
        Where files may be written.
    model
        A bundle; the name of one that ships; or "", for the default one if it is of full
        size, else for one of full size with random weights, which are as fast as others.
    """

    folder: Path
    model: str = ""
    sizes: Sizes = Sizes()

    @cached_property
    def bundle(self) -> Bundle:
        if self.model:
            return load_bundle(self.model)
        default = load_bundle("default")
        shape = Shape(len(default.vocabulary))
        if replace(default.shape, dropout=shape.dropout) == shape:
            return default
        torch.manual_seed(0)
        check = default.self_check
        content = BundleContent(
            name="random weights",
            description="a network of full size with random weights, for its speed",
            network=Transformer(shape),
            vocabulary=default.vocabulary,
            standardisation=default.standardisation,
            domain=default.domain,
            training={"data": "none: the weights are random", "seed": 0},
            check_values=check.values,
            check_labels=check.labels,
        )
        return write_bundle(self.folder / "model", content)

    @cached_property
    def job(self) -> Job:
        """The demo's, without propagation of errors, which has rows of its own."""
        job = load_job("demo")
        known = {field.name for field in fields(job)}
        return replace(job, propagation="none") if "propagation" in known else job

    @cached_property
    def predictor(self) -> Predictor:
        return Predictor(self.bundle)

    @cached_property
    def engine(self) -> Engine:
        return Engine(self.bundle, self.job)

    @cached_property
    def rates(self) -> dict[str, float]:
        """Of matrix products on this machine, see :func:`bench.matrix.rates`."""
        from bench.matrix import rates

        return rates(self.bundle.shape, self.sizes.repeats, self.sizes.budget / 4)

    def real(self, n: int) -> NDArray[np.float64]:
        """Tokens (n, V) of real spectra, irrelevant coefficients left out, as the demo has them."""
        found = self._real
        return found[np.arange(n) % len(found)]

    def full(self, n: int, tokens: int = 63) -> NDArray[np.float64]:
        """Tokens (n, V) of stars with so many: three colours and, from the first, coefficients
        of both bands; 63 is the most that the demo reads, 33 what the median giant has."""
        vocabulary = self.bundle.vocabulary
        bands = zip(*(vocabulary.coefficient_columns(band) for band in BANDS), strict=False)
        ordered = [*vocabulary.columns(("bprp", "jh", "jk")), *(c for pair in bands for c in pair)]
        columns = np.array(ordered[:tokens])
        standardisation = self.bundle.standardisation
        values = np.full((n, len(vocabulary)), np.nan)
        normal = np.random.default_rng(0).normal(size=(n, len(columns)))
        values[:, columns] = (
            standardisation.center[columns] + normal * standardisation.scale[columns]
        )
        return values

    @cached_property
    def spectra_read(self) -> pa.RecordBatch:
        """The real spectra, screened."""
        batches = [b for path in sorted(EXAMPLES.glob("*.parquet")) for b in read_spectra(path)]
        whole = pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
        return screen(whole, self.bundle.vocabulary, Duplicates(), "examples")[0]

    @cached_property
    def _real(self) -> NDArray[np.float64]:
        values = self.engine.features(self.spectra_read).values
        return values[np.isfinite(values).any(axis=1)]

    @cached_property
    def table(self) -> Path:
        """A Parquet file of ``sizes.table`` spectra, in one row group."""
        return self.spectra(self.sizes.table, self.sizes.table)

    def spectra(self, n: int, row_group: int) -> Path:
        """A Parquet file of n spectra: the real ones again and again, each time of another
        brightness, with its own source_id."""
        path = self.folder / f"spectra-{n}-{row_group}.parquet"
        if not path.exists():
            table = multiplied(n)
            with parquet_writer(path, table.schema, split_floats=True) as writer:  # as convert writes them
                writer.write_table(table, row_group_size=row_group)
        return path

    @cached_property
    def simulated(self) -> tuple[list[Path], list[Path]]:
        """Files of spectra and of their companion, ``sizes.table`` simulated stars."""
        from catalogproc.simulation.simulator import Simulator, write_stars

        folder = self.folder / "simulated"
        paths = write_stars(Simulator().draw(self.sizes.table, 1), folder)
        return (
            [path for path in paths if path.name.startswith("xp_continuous")],
            [path for path in paths if path.name.startswith("gaia_source")],
        )


def multiplied(n: int) -> pa.Table:
    """n real spectra of the contract xp_continuous, see :meth:`Kit.spectra`."""
    files = sorted(EXAMPLES.glob("*.parquet"))
    real = pa.concat_tables([pq.read_table(file) for file in files]).combine_chunks()
    taken = real.take(pa.array(np.arange(n) % len(real))).combine_chunks()
    # Below a factor of 1.6: relevance and errors stay those of a star as bright.
    factor = 10.0 ** np.random.default_rng(0).uniform(-0.1, 0.1, n)
    contract = load_contract("xp_continuous")
    columns: dict[str, Any] = {"source_id": (np.arange(n, dtype=np.int64) + 1) << 35}
    for band in BANDS:
        columns[f"{band}_n_relevant_bases"] = taken[f"{band}_n_relevant_bases"]
        for what in ("coefficients", "coefficient_errors"):
            name = f"{band}_{what}"
            lists = taken[name].combine_chunks()
            lengths = np.diff(lists.offsets.to_numpy())
            scaled = lists.flatten().to_numpy() * np.repeat(factor, lengths)
            element = contract[name].arrow_type.value_type
            columns[name] = pa.ListArray.from_arrays(lists.offsets, pa.array(scaled).cast(element))
    return pa.table(columns)


def each_array(value: Any, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Any:
    """The same with every array in it changed: an array, a dataclass or a tuple, such as an
    answer."""
    if isinstance(value, np.ndarray):
        return change(value)
    if isinstance(value, tuple):
        return tuple(each_array(part, change) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value)]
        return replace(value, **{name: each_array(getattr(value, name), change) for name in names})
    return value
