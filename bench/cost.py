"""What 220 million stars take, at the rates that were measured; nothing here is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

STARS = 220_000_000
HOST = 16
"""Cores beside one GPU, as issue 4 has them."""

Rates = Mapping[tuple[str, str], float | None]
"""By family and row."""


@dataclass(frozen=True)
class Item:
    """One line of the bill; ``value`` is None where what it follows from was not measured."""

    name: str
    value: float | None
    unit: str
    from_what: str


def bill(rates: Rates) -> list[Item]:
    """The bill from a bench's figures, with 33 tokens and 7 labels a star, as the median has."""

    def rate(family: str, row: str) -> float | None:
        return rates.get((family, row))

    def hours(stars_a_second: float | None) -> float | None:
        return STARS / stars_a_second / 3600 if stars_a_second else None

    predict = rate("stages", "predict, 33 tokens")
    rest = rate("stages", "all but the model, no companion")
    gpu = rate("gpu", "stars, 33 tokens, 7 labels")
    convert = rate("conversion", "csv.gz")
    carried = rate("propagation", "correlated errors against plain inference")
    both = 1 / (1 / predict + 1 / rest) if predict and rest else None
    errors = predict / (carried - 1) if predict and carried and carried > 1 else None
    return [
        Item("run without a GPU", hours(both), "CPU hours", "the next two"),
        Item("of it, the network", hours(predict), "CPU hours", "predict, by core"),
        Item("of it, all but the network", hours(rest), "CPU hours", "all but the model, by core"),
        Item("more, to carry errors", hours(errors), "CPU hours", "propagation, correlated"),
        Item("run on one GPU, the network", hours(gpu), "GPU hours", "predictor on a GPU"),
        Item(
            f"beside it, all but the network on {HOST} cores",
            hours(None if rest is None else rest * HOST),
            "hours",
            "all but the model, by core",
        ),
        Item("convert from csv.gz, once", hours(convert), "CPU hours", "convert, one process"),
        *(
            Item(name, None if size is None else STARS * size / 1e9, "GB", row)
            for name, size, row in (
                ("csv.gz", rate("conversion", "csv.gz a star"), "bytes a star"),
                ("Parquet read", rate("stages", "input a star"), "bytes a star"),
                ("catalog written", rate("stages", "output a star"), "bytes a star"),
            )
        ),
    ]


def bottleneck(rates: Rates) -> dict[str, str]:
    """What bounds a run without and with a GPU; "not measured" where one does not know."""
    predict = rates.get(("stages", "predict, 33 tokens"))
    rest = rates.get(("stages", "all but the model, no companion"))
    gpu = rates.get(("gpu", "stars, 33 tokens, 7 labels"))
    return {
        "without a GPU": _slower(predict, rest, "the network, on the cores"),
        f"one GPU and {HOST} cores": _slower(
            gpu, None if rest is None else rest * HOST, "the network, on the GPU"
        ),
    }


def _slower(network: float | None, rest: float | None, word: str) -> str:
    if not network or not rest:
        return "not measured"
    if network <= rest:
        return f"{word}: {rest / network:,.1f} times as slow as all else"
    return f"reading, features and writing: {network / rest:,.1f} times as slow as the network"
