"""Hours and gigabytes for all spectra of a release, computed from the measured rates only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

STARS = {"Gaia DR3": 220_000_000, "Gaia DR4": 1_000_000_000}
"""Stars with XP spectra; those of DR4 are an assumption."""
HOST = 16
"""Cores of a host with one GPU."""
NODE = 64
"""Cores of a node without GPUs."""

Rates = Mapping[tuple[str, str], float | None]
"""Figures by family and row."""


@dataclass(frozen=True)
class Item:
    """One line of the cost table; a value is None where a rate that it needs was not measured.

    Attributes
    ----------
    name, unit, from_what
        What is needed, in which unit, and the rows that it is computed from.
    values
        By release.
    """

    name: str
    unit: str
    from_what: str
    values: Mapping[str, float | None]


def report(rates: Rates) -> dict[str, Any]:
    """Return stars, costs and bottlenecks, for bench.json.

    Parameters
    ----------
    rates
        Figures of a benchmark.
    """
    return {
        "stars": STARS,
        "bill": [asdict(item) for item in bill(rates)],
        "bottleneck": bottleneck(rates),
    }


def bill(rates: Rates) -> list[Item]:
    """Return the cost table for 33 tokens and 7 labels per star, the median of giants.

    Parameters
    ----------
    rates
        Figures of a benchmark.
    """

    def item(name: str, unit: str, from_what: str, of: Callable[[int], float | None]) -> Item:
        return Item(name, unit, from_what, {release: of(n) for release, n in STARS.items()})

    def hours(name: str, unit: str, from_what: str, rate: float | None) -> Item:
        return item(name, unit, from_what, lambda n: n / rate / 3600 if rate else None)

    def bytes_of(name: str, family: str, row: str) -> Item:
        size = rates.get((family, row))
        return item(name, "GB", "bytes per star", lambda n: n * size / 1e9 if size else None)

    found = _Rates.of(rates)
    return [
        hours("run without a GPU", "CPU hours", "the next two", found.core),
        hours("of which the network", "CPU hours", "predict, per core", found.predict),
        hours("of which all but the network", "CPU hours", "all but the model, per core",
              found.rest),
        hours("extra for first-order errors", "CPU hours", "propagation, correlated",
              found.errors),
        hours(f"run on a node of {NODE} such cores", "hours", "the same",
              found.core and found.core * NODE),
        hours("run on one GPU, the network", "GPU hours", "predictor on a GPU", found.gpu),
        hours(f"with it, all but the network on {HOST} cores", "hours",
              "all but the model, per core", found.rest and found.rest * HOST),
        hours("convert from csv.gz (once)", "CPU hours", "convert, one process",
              rates.get(("conversion", "csv.gz"))),
        bytes_of("csv.gz", "conversion", "csv.gz a star"),
        bytes_of("Parquet read", "stages", "input a star"),
        bytes_of("catalog written", "stages", "output a star"),
    ]  # fmt: skip


@dataclass(frozen=True)
class _Rates:
    """Stars per second: of the network and of the rest on one core, and of both; of the extra work
    for first-order errors; of a GPU."""

    predict: float | None
    rest: float | None
    core: float | None
    errors: float | None
    gpu: float | None

    @classmethod
    def of(cls, rates: Rates) -> _Rates:
        predict = rates.get(("stages", "predict, 33 tokens"))
        rest = rates.get(("stages", "all but the model, spectra only"))
        times = rates.get(("propagation", "correlated errors against inference without errors"))
        return cls(
            predict,
            rest,
            1 / (1 / predict + 1 / rest) if predict and rest else None,
            predict / (times - 1) if predict and times and times > 1 else None,
            rates.get(("gpu", "stars, 33 tokens, 7 labels")),
        )


def bottleneck(rates: Rates) -> dict[str, str]:
    """Return the slowest part of a run without and with a GPU, or "not measured".

    Parameters
    ----------
    rates
        Figures of a benchmark.
    """
    found = _Rates.of(rates)
    host = found.rest and found.rest * HOST
    limits = {
        "without a GPU": _slower(found.predict, found.rest, "the network, on the cores"),
        f"one GPU and {HOST} cores": _slower(found.gpu, host, "the network, on the GPU"),
    }
    size = rates.get(("stages", "input a star"))
    for name, rate in ((f"a node of {NODE} cores", found.core and found.core * NODE),
                       ("one GPU", found.gpu)):  # fmt: skip
        if rate and size:
            limits[f"storage, for {name}"] = f"{rate * size / 1e6:,.0f} MB/s of Parquet are read"
    return limits


def _slower(network: float | None, rest: float | None, name: str) -> str:
    if not network or not rest:
        return "not measured"
    if network <= rest:
        return f"{name}: {rest / network:,.1f} times as slow as the rest"
    return f"reading, features and writing: {network / rest:,.1f} times as slow as the network"
