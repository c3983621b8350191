"""What was taken from each auxiliary table, added up and in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from catalogproc.contract import load_contract
from catalogproc.errors import plural
from catalogproc.readers.joined_rows import CONTRADICTS, OWN, REPEATED, STARS, UNREADABLE, Account


def added(accounts: Iterable[Account]) -> dict[str, dict[str, int]]:
    """Return the sum of the accounts of different stars.

    Parameters
    ----------
    accounts
        What was taken from each table.
    """
    total: dict[str, dict[str, int]] = {}
    for account in accounts:
        for table, counts in account.items():
            held = total.setdefault(table, {})
            for what, number in counts.items():
                held[what] = held.get(what, 0) + number
    return total


def account_lines(account: Account, stars: int) -> Iterator[str]:
    """Yield for each table what was taken from it, and what is wrong with it.

    Parameters
    ----------
    account
        What was taken from each table.
    stars
        Number of stars.
    """
    for table, counts in account.items():
        found = "" if table == OWN else f"{counts.get(STARS, 0):,} of {plural(stars, 'star')}; "
        yield f"{table}: {found}values taken: {_columns(counts)}"
        if REPEATED in counts:
            rows = plural(counts[REPEATED], "row")
            yield f"  {rows} more that agree with another one of the star in every column"
        for word, text in (
            (CONTRADICTS, "values that differ from those of an earlier table, which count"),
            (UNREADABLE, "values that cannot be read, and are missing"),
        ):
            wrong = [(k.removeprefix(word), n) for k, n in counts.items() if k.startswith(word)]
            if wrong:
                yield f"  warning: {text}: {', '.join(f'{name} {n:,}' for name, n in wrong)}"


def _columns(counts: Mapping[str, int]) -> str:
    """The columns by the number of values that were taken, largest first."""
    by_number: dict[int, list[str]] = {}
    for name in load_contract("gaia_source").names:
        if name in counts:
            by_number.setdefault(counts[name], []).append(name)
    words = (f"{', '.join(by_number[n])} ({n:,})" for n in sorted(by_number, reverse=True))
    return "; ".join(words) or "none"


def zero_point_summary(differences: Mapping[str, int]) -> dict[str, float] | None:
    """Return how the two zero-points of the parallaxes differ; None where no star has both.

    Parameters
    ----------
    differences
        Number of stars by the difference of the zero-point of the release and that of Lindegren
        et al. (2021), in whole micro-arcseconds.

    Returns
    -------
    dict or None
        ``stars``; ``median_mas``; ``low_mas`` and ``high_mas``, the 16th and 84th percentiles.
    """
    ordered = sorted((int(value), count) for value, count in differences.items())
    stars = sum(count for _, count in ordered)
    if not stars:
        return None
    names = {"low_mas": 0.16, "median_mas": 0.5, "high_mas": 0.84}
    return {"stars": stars} | {
        name: _quantile(ordered, share * stars) / 1000 for name, share in names.items()
    }


def _quantile(ordered: list[tuple[int, int]], rank: float) -> int:
    """The value at a rank of a sorted histogram."""
    reached = accumulate(count for _, count in ordered)
    pairs = zip(ordered, reached, strict=True)
    return next((value for (value, _), total in pairs if total >= rank), ordered[-1][0])


def zero_point_lines(found: Mapping[str, float] | None) -> Iterator[str]:
    """Yield how the two zero-points of the parallaxes differ; nothing where no star has both.

    Parameters
    ----------
    found
        As :func:`zero_point_summary` returns it.
    """
    if found is not None:
        yield (
            f"zero-points of the parallax, tentative_parallax_bias (used) less Lindegren et al. "
            f"(2021): median {1000 * found['median_mas']:+.0f} micro-arcseconds, 16 to 84 %: "
            f"{1000 * found['low_mas']:+.0f} to {1000 * found['high_mas']:+.0f}, "
            f"of {plural(int(found['stars']), 'star')}"
        )
