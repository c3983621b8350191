"""Two catalogs of the same stars compared: differences over errors by label, G and flag.

The two catalogs are of two Gaia releases, or of two models or jobs. Where they are of independent
spectra and one model, the differences test the stated uncertainties: over the joint input
uncertainties they scatter by 1. If the second spectrum contains all transits of the first one, the
noise is shared, and the expected scatter is sqrt((a^2 - b^2) / (a^2 + b^2)) for input
uncertainties a and b.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.datasets.crosswalk import Crosswalk, read_crosswalk
from catalogproc.errors import InputError, plural
from catalogproc.evaluation.scores import robust_spread
from catalogproc.export.open_catalog import open_catalog
from catalogproc.flags import FlagSet, load_flags, load_input_flags
from catalogproc.rundir.manifest import RunIdentity
from catalogproc.vocabulary import CANONICAL_RELEASE

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]

LABELS = ("teff", "logg", "m_h", "alpha_m", "mass", "log_age", "ln_ebv", "g_fakemag")
"""Labels that are compared, of those that both catalogs have."""
AGED = ("mass", "log_age")
"""Labels that need good_mass_age; the others need good_params."""
SAMPLES = ("good_params", "good_mass_age")
FLAG_COLUMNS = ("quality_flags", "input_flags")
MIN_PAIRS = 10
"""Of fewer stars only the number is given."""
NAN = float("nan")


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two catalogs (N stars).

    Attributes
    ----------
    name, identity
        Name of the run folder; job, model, release of the run.
    table
        Its stars, with the columns that are compared.
    """

    name: str
    identity: RunIdentity
    table: pa.Table

    def __len__(self) -> int:
        return len(self.table)

    def numbers(self, column: str, rows: Ids) -> Floats:
        """Return a column of some stars as floats.

        Parameters
        ----------
        column
            Name of the column.
        rows
            Rows (n,).
        """
        return np.asarray(self.table[column].to_numpy()[rows], dtype=np.float64)

    def line(self) -> str:
        """Return what it is, for the user."""
        model = f"model {self.identity.model.get('name', '')} ({self.identity.model_hash[:8]})"
        release = self.identity.data_release
        bridge = ", by a bridge" if release.bridge is not None else ""
        return f"{self.name}: {plural(len(self), 'star')}, {release.title}{bridge}, {model}"


@dataclass(frozen=True)
class Difference:
    """Second minus first catalog in one label, of one group of stars.

    Attributes
    ----------
    group, name
        "all"; "G" and a range; the column and the name of a flag.
    label, pairs
        The label, and the number of stars with a value in both.
    bias, scatter
        Median of the differences, and 1.4826 times their median absolute deviation.
    z_input
        The same scatter of the differences over the joint input uncertainties.
    shared
        What z_input is expected to be if the second spectra contain the transits of the first.
    z_bias, z_total
        Median and scatter of the differences over the joint total uncertainties.
    within_1_sigma, beyond_3_sigma
        Shares of stars by these.
    """

    group: str
    name: str
    label: str
    pairs: int
    bias: float = NAN
    scatter: float = NAN
    z_input: float = NAN
    shared: float = NAN
    z_bias: float = NAN
    z_total: float = NAN
    within_1_sigma: float = NAN
    beyond_3_sigma: float = NAN


@dataclass(frozen=True)
class Membership:
    """Of the stars in both catalogs, how many have a flag or are in a sample, by catalog.

    Attributes
    ----------
    kind, name
        Column and flag; "sample" and its name.
    first_alone, second_alone, both
        Number of stars.
    """

    kind: str
    name: str
    first_alone: int
    second_alone: int
    both: int


@dataclass(frozen=True, eq=False)
class CatalogDiff:
    """Two catalogs, and what their common stars have in common.

    Attributes
    ----------
    first, second
        The catalogs.
    crosswalk
        The identifiers of both; None where these are the same.
    in_both, not_in_crosswalk
        Numbers of stars.
    membership, differences
        Of the stars in both.
    z
        By label, differences over joint total uncertainties of good stars (n,).
    """

    first: Side
    second: Side
    crosswalk: Crosswalk | None
    in_both: int
    not_in_crosswalk: int
    membership: tuple[Membership, ...]
    differences: tuple[Difference, ...]
    z: Mapping[str, Floats]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that are compared."""
        return tuple(one.label for one in self.differences if one.group == "all")

    def lines(self) -> list[str]:
        """Return the counts of stars on both sides, for the user."""
        lines = [self.first.line(), self.second.line()]
        if self.crosswalk is not None:
            lines.append(f"{self.crosswalk.line()}; {plural(self.not_in_crosswalk, 'star')} of "
                         f"{self.first.name} not in it")  # fmt: skip
        elif self.first.identity.data_release.name != self.second.identity.data_release.name:
            lines.append("no crosswalk: the identifiers of both releases are taken to be the same")
        lines.append(
            f"in both {self.in_both:,}; in {self.first.name} alone "
            f"{len(self.first) - self.in_both:,}; in {self.second.name} alone "
            f"{len(self.second) - self.in_both:,}"
        )
        if self.first.identity.model_hash != self.second.identity.model_hash:
            lines.append("the models differ: differences are those of the models too")
        return lines

    def group(self, group: str) -> list[Difference]:
        """Return the differences of one kind of group.

        Parameters
        ----------
        group
            As of :class:`Difference`.
        """
        return [one for one in self.differences if one.group == group]


@dataclass(frozen=True, eq=False)
class _Pairs:
    """The stars in both catalogs (n,), as rows of either."""

    first: Side
    second: Side
    one: Ids
    two: Ids

    def both(self, column: str) -> tuple[NDArray[Any], NDArray[Any]]:
        sides = ((self.first, self.one), (self.second, self.two))
        first, second = (side.table[column].to_numpy()[rows] for side, rows in sides)
        return first, second

    def difference(self, label: str) -> tuple[Floats, dict[str, tuple[Floats, Floats]]]:
        """Return second minus first (n,), and the uncertainties of both, total and input."""
        errors = {
            kind: (self.first.numbers(name, self.one), self.second.numbers(name, self.two))
            for kind, name in (("total", f"e_{label}"), ("input", f"e_{label}_input"))
        }
        change = self.second.numbers(label, self.two) - self.first.numbers(label, self.one)
        return change, errors

    def good(self, sample: str) -> Mask:
        first, second = self.both(sample)
        return np.asarray(first & second, dtype=bool)


def compare_catalogs(
    first: str | Path,
    second: str | Path,
    crosswalk: Path | None = None,
    where: str | None = None,
) -> CatalogDiff:
    """Compare two catalogs star by star.

    Parameters
    ----------
    first, second
        Folders of ``run``, or their addresses.
    crosswalk
        Table dr3_neighbourhood, where one of the catalogs is of DR3 and identifiers changed.
    where
        Which stars of both catalogs are compared, as ``--where`` of ``export``; all by default.
        Other stars are not read, which saves memory.

    Raises
    ------
    InputError
        No star is in both; or the crosswalk cannot be read, or is not for these catalogs.
    ResumeError, VerifyError
        A folder holds no run, or is damaged.
    """
    labels = _labels(first, second)
    sides = (_read(first, labels, where), _read(second, labels, where))
    link = None if crosswalk is None else read_crosswalk(crosswalk)
    ids = _common_ids(sides, link, crosswalk)
    known = ids > 0
    theirs = sides[1].table["source_id"].to_numpy()
    _, one, two = np.intersect1d(ids[known], theirs, return_indices=True)
    pairs = _Pairs(sides[0], sides[1], np.flatnonzero(known)[one], two)
    if not len(two):
        raise InputError(
            "no star is in both catalogs", found=f"{sides[0].line()}; {sides[1].line()}",
            wanted="stars of the same identifiers" + (", by the crosswalk" if link else ""),
            advice=None if link else "where they changed: --crosswalk dr3_neighbourhood",
        )  # fmt: skip
    changes = {label: pairs.difference(label) for label in labels}
    # A label that the job of one run did not ask for is a column without values.
    changes = {
        label: (change, errors) for label, (change, errors) in changes.items()
        if np.isfinite(change * np.hypot(*errors["total"])).any()
    }  # fmt: skip
    return CatalogDiff(
        sides[0], sides[1], link, len(two), int((~known).sum()),
        tuple(_membership(pairs)), tuple(_differences(pairs, changes)),
        {label: _over_errors(pairs, label, *one) for label, one in changes.items()},
    )  # fmt: skip


def _labels(*folders: str | Path) -> tuple[str, ...]:
    held = [set(open_catalog(folder).columns) for folder in folders]
    return tuple(name for name in LABELS if all({name, f"e_{name}"} <= names for names in held))


def _read(folder: str | Path, labels: Sequence[str], where: str | None) -> Side:
    catalog = open_catalog(folder)
    columns = ["source_id", "phot_g_mean_mag", *SAMPLES, *FLAG_COLUMNS]
    for label in labels:
        columns += [label, f"e_{label}", f"e_{label}_input"]
    name = catalog.folder.resolve().name
    return Side(name, catalog.identity, catalog.to_arrow(columns, where).combine_chunks())


def _common_ids(sides: Sequence[Side], link: Crosswalk | None, path: Path | None) -> Ids:
    """Return the identifiers that the stars of the first catalog have in the second (N,)."""
    ids: Ids = sides[0].table["source_id"].to_numpy()
    if link is None:
        return ids
    older = [side.identity.data_release.name == CANONICAL_RELEASE for side in sides]
    if all(older):
        raise InputError(
            "a crosswalk is given, and both catalogs are of the same release", where=path,
            found=f"{sides[0].line()}; {sides[1].line()}", advice="leave --crosswalk out",
        )  # fmt: skip
    return link.to_older(ids) if older[1] else link.to_newer(ids)


def _membership(pairs: _Pairs) -> Iterator[Membership]:
    """Yield how many stars have each flag or are in a sample; none where no star has it."""
    for name in SAMPLES:
        yield _counted("sample", name, *pairs.both(name))
    for column, flags in _flags():
        first, second = pairs.both(column)
        for flag in flags.flags:
            found = _counted(column, flag.name, first & flag.value > 0, second & flag.value > 0)
            if found.first_alone or found.second_alone or found.both:
                yield found


def _flags() -> tuple[tuple[str, FlagSet], ...]:
    return tuple(zip(FLAG_COLUMNS, (load_flags(), load_input_flags()), strict=True))


def _counted(kind: str, name: str, first: NDArray[Any], second: NDArray[Any]) -> Membership:
    one, two = first.astype(bool), second.astype(bool)
    return Membership(kind, name, int((one & ~two).sum()), int((two & ~one).sum()),
                      int((one & two).sum()))  # fmt: skip


def _sample(label: str) -> str:
    return SAMPLES[label in AGED]


Changes = Mapping[str, tuple[Floats, dict[str, tuple[Floats, Floats]]]]


def _differences(pairs: _Pairs, changes: Changes) -> Iterator[Difference]:
    """Yield all stars, then ranges of G, of stars that are good in both; then flags."""
    for label, (change, errors) in changes.items():
        yield _difference(("all", "", label), pairs.good(_sample(label)), change, errors)
    g = pairs.second.numbers("phot_g_mean_mag", pairs.two)
    g = np.where(np.isfinite(g), g, pairs.first.numbers("phot_g_mean_mag", pairs.one))
    whole = np.floor(g)
    for start in np.unique(whole[np.isfinite(whole)]):
        name = f"{start:.0f} to {start + 1:.0f}"
        for label, (change, errors) in changes.items():
            rows = (whole == start) & pairs.good(_sample(label))
            yield _difference(("G", name, label), rows, change, errors)
    for column, flags in _flags():
        first, second = pairs.both(column)
        for flag in flags.flags:
            rows = (first | second) & flag.value > 0
            for label, (change, errors) in changes.items() if rows.any() else ():
                yield _difference((column, flag.name, label), rows, change, errors)


def _difference(
    what: tuple[str, str, str],
    rows: Mask,
    change: Floats,
    errors: Mapping[str, tuple[Floats, Floats]],
) -> Difference:
    (first, second) = errors["total"]
    total = np.hypot(first, second)
    rows = rows & np.isfinite(change) & (total > 0)
    count = int(rows.sum())
    if count < MIN_PAIRS:
        return Difference(*what, count)
    z = change[rows] / total[rows]
    one, two = (error[rows] for error in errors["input"])
    joint = np.hypot(one, two)
    noisy = joint > 0
    by_input, shared = NAN, NAN
    if noisy.sum() >= MIN_PAIRS:
        by_input = robust_spread(change[rows][noisy] / joint[noisy])
        shared = float(np.median(np.sqrt(np.abs(one**2 - two**2))[noisy] / joint[noisy]))
    return Difference(
        *what, count, float(np.median(change[rows])), robust_spread(change[rows]), by_input,
        shared, float(np.median(z)), robust_spread(z), float(np.mean(np.abs(z) < 1)),
        float(np.mean(np.abs(z) > 3)),
    )  # fmt: skip


def _over_errors(
    pairs: _Pairs, label: str, change: Floats, errors: Mapping[str, tuple[Floats, Floats]]
) -> Floats:
    total = np.hypot(*errors["total"])
    rows = pairs.good(_sample(label)) & np.isfinite(change) & (total > 0)
    return np.asarray(change[rows] / total[rows])
