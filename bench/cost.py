"""Hours and gigabytes for 220 million stars, computed from the measured rates only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

STARS = 220_000_000
HOST = 16
"""Cores of a host with one GPU."""

Rates = Mapping[tuple[str, str], float | None]
"""Figures by family and row."""


@dataclass(frozen=True)
class Item:
    """One line of the cost table; ``value`` is None where a rate that it needs was not measured."""

    name: str
    value: float | None
    unit: str
    from_what: str


def bill(rates: Rates) -> list[Item]:
    """Return the cost table for 33 tokens and 7 labels per star, the median of giants.

    Parameters
    ----------
    rates
        Figures of a benchmark.
    """

    def rate(family: str, row: str) -> float | None:
        return rates.get((family, row))

    def hours(stars_per_second: float | None) -> float | None:
        return STARS / stars_per_second / 3600 if stars_per_second else None

    predict = rate("stages", "predict, 33 tokens")
    rest = rate("stages", "all but the model, spectra only")
    gpu = rate("gpu", "stars, 33 tokens, 7 labels")
    convert = rate("conversion", "csv.gz")
    propagated = rate("propagation", "correlated errors against inference without errors")
    both = 1 / (1 / predict + 1 / rest) if predict and rest else None
    errors = predict / (propagated - 1) if predict and propagated and propagated > 1 else None
    return [
        Item("run without a GPU", hours(both), "CPU hours", "the next two"),
        Item("of which the network", hours(predict), "CPU hours", "predict, per core"),
        Item(
            "of which all but the network", hours(rest), "CPU hours", "all but the model, per core"
        ),
        Item("extra for error propagation", hours(errors), "CPU hours", "propagation, correlated"),
        Item("run on one GPU, the network", hours(gpu), "GPU hours", "predictor on a GPU"),
        Item(
            f"with it, all but the network on {HOST} cores",
            hours(None if rest is None else rest * HOST),
            "hours",
            "all but the model, per core",
        ),
        Item("convert from csv.gz (once)", hours(convert), "CPU hours", "convert, one process"),
        *(
            Item(name, None if size is None else STARS * size / 1e9, "GB", row)
            for name, size, row in (
                ("csv.gz", rate("conversion", "csv.gz a star"), "bytes per star"),
                ("Parquet read", rate("stages", "input a star"), "bytes per star"),
                ("catalog written", rate("stages", "output a star"), "bytes per star"),
            )
        ),
    ]


def bottleneck(rates: Rates) -> dict[str, str]:
    """Return the slowest part of a run without and with a GPU, or "not measured".

    Parameters
    ----------
    rates
        Figures of a benchmark.
    """
    predict = rates.get(("stages", "predict, 33 tokens"))
    rest = rates.get(("stages", "all but the model, spectra only"))
    gpu = rates.get(("gpu", "stars, 33 tokens, 7 labels"))
    return {
        "without a GPU": _slower(predict, rest, "the network, on the cores"),
        f"one GPU and {HOST} cores": _slower(
            gpu, None if rest is None else rest * HOST, "the network, on the GPU"
        ),
    }


def _slower(network: float | None, rest: float | None, name: str) -> str:
    if not network or not rest:
        return "not measured"
    if network <= rest:
        return f"{name}: {rest / network:,.1f} times as slow as the rest"
    return f"reading, features and writing: {network / rest:,.1f} times as slow as the network"
