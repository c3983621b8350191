"""The model, the stars and the files that the rows use, created at their first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from catalogproc.network.shape import Shape
from catalogproc.network.transformer import Transformer
from catalogproc.readers.xp import read_spectra
from catalogproc.vocabulary import BANDS

EXAMPLES = ROOT / "examples" / "gaia_xp"
FIVE = ("teff", "logg", "m_h", "mass", "log_age")
SEVEN = (*FIVE, "logebv", "g_fakemag")


@dataclass(frozen=True)
class Sizes:
    """Sizes of the measurements, in stars unless a comment says otherwise."""

    repeats: int = 5  # repetitions of a measurement
    budget: float = 20.0  # approximate limit per figure, seconds
    predict: int = 1024
    exact: int = 1000
    table: int = 50_000  # one chunk of the default job
    run: int = 12_000  # more where the model is fast
    convert: int = 12_000
    parser: int = 200
    simulate: int = 8_192
    batch: int = 256
    steps: int = 6  # training steps
    gpu: int = 1_000_000


BRIEF = Sizes(repeats=3, budget=4.0, gpu=200_000)
"""For a GPU that is at hand for minutes."""

TINY = Sizes(
    repeats=2, budget=0.2, predict=48, exact=20, table=300, run=120, convert=40, parser=8,
    simulate=64, batch=16, steps=3, gpu=512,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Kit:
    """Model, job, stars and files of a benchmark.

    Parameters
    ----------
    folder
        Where files may be written.
    model
        A bundle, the name of a shipped one, or "": the default model if it has full size, else
        a model of full size with random weights, which is as fast.
    sizes
        Sizes of the measurements.
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
            check_tokens=check.tokens,
            check_labels=check.labels,
        )
        return write_bundle(self.folder / "model", content)

    @cached_property
    def job(self) -> Job:
        """The demo job with SEVEN labels, without error propagation, which has its own rows."""
        job = replace(load_job("demo"), labels=SEVEN)
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
        """Rates of matrix products on this machine, see :func:`bench.matrix.rates`."""
        from bench.matrix import rates

        return rates(self.bundle.shape, self.sizes.repeats, self.sizes.budget / 4)

    def real(self, n: int) -> NDArray[np.float64]:
        """Return tokens (n, V) of real spectra, relevant coefficients only, as in the demo job."""
        found = self._real
        return found[np.arange(n) % len(found)]

    def full(self, n: int, tokens: int = 63) -> NDArray[np.float64]:
        """Return tokens (n, V) of random stars: three colours, then coefficients of both bands.

        Parameters
        ----------
        n
            Number of stars.
        tokens
            Tokens per star: 63 is the maximum of the demo job, 33 the median of giants.
        """
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
        """The real spectra after screening."""
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
        """Return a Parquet file of n spectra: repeated real ones, scaled in brightness, each with
        its own source_id."""
        path = self.folder / f"spectra-{n}-{row_group}.parquet"
        if not path.exists():
            table = repeated_spectra(n)
            with parquet_writer(
                path, table.schema, split_floats=True
            ) as writer:  # as convert writes them
                writer.write_table(table, row_group_size=row_group)
        return path

    @cached_property
    def simulated(self) -> tuple[list[Path], list[Path]]:
        """Files of spectra and of gaia_source columns of ``sizes.table`` simulated stars."""
        from catalogproc.simulation.simulator import Simulator, write_stars

        folder = self.folder / "simulated"
        paths = write_stars(Simulator().draw(self.sizes.table, 1), folder)
        return (
            [path for path in paths if path.name.startswith("xp_continuous")],
            [path for path in paths if path.name.startswith("gaia_source")],
        )


def repeated_spectra(n: int) -> pa.Table:
    """Return n spectra of the contract xp_continuous, see :meth:`Kit.spectra`."""
    files = sorted(EXAMPLES.glob("*.parquet"))
    real = pa.concat_tables([pq.read_table(file) for file in files]).combine_chunks()
    taken = real.take(pa.array(np.arange(n) % len(real))).combine_chunks()
    # Within a factor of 1.6 the relevant bases and errors remain realistic.
    factor = 10.0 ** np.random.default_rng(0).uniform(-0.1, 0.1, n)
    contract = load_contract("xp_continuous")
    columns: dict[str, Any] = {"source_id": (np.arange(n, dtype=np.int64) + 1) << 35}
    for band in BANDS:
        columns[f"{band}_n_relevant_bases"] = taken[f"{band}_n_relevant_bases"]
        for quantity in ("coefficients", "coefficient_errors"):
            name = f"{band}_{quantity}"
            lists = taken[name].combine_chunks()
            lengths = np.diff(lists.offsets.to_numpy())
            scaled = lists.flatten().to_numpy() * np.repeat(factor, lengths)
            element = contract[name].arrow_type.value_type
            columns[name] = pa.ListArray.from_arrays(lists.offsets, pa.array(scaled).cast(element))
    return pa.table(columns)


def each_array(value: Any, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Any:
    """Return a value with a function applied to each of its arrays.

    Parameters
    ----------
    value
        An array, or a dataclass, tuple or mapping that holds arrays, at any depth.
    change
        The function.
    """
    if isinstance(value, np.ndarray):
        return change(value)
    if isinstance(value, tuple):
        return tuple(each_array(part, change) for part in value)
    if isinstance(value, Mapping):
        return {name: each_array(part, change) for name, part in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value)]
        return replace(value, **{name: each_array(getattr(value, name), change) for name in names})
    return value
