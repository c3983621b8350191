"""A catalog compared with a published one: scores of all matched stars, of good ones, and by flag,
magnitude and value of the reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from catalogproc.errors import InputError
from catalogproc.evaluation.coverage import BINS
from catalogproc.evaluation.external_checks import Measured
from catalogproc.evaluation.external_tables import AGED
from catalogproc.evaluation.quantities import label_of
from catalogproc.evaluation.reference_catalog import ReferenceStars
from catalogproc.evaluation.scores import DecileScore, Score, by_decile, score
from catalogproc.flags import load_flags

Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]

QUANTITIES = (
    "teff", "logg", "m_h", "alpha_m", "mass", "mass_percent", "age", "age_percent", "log_age",
)  # fmt: skip
"""What is compared, in the order of the tables."""

SHOWN = ("teff", "logg", "m_h", "alpha_m", "mass", "age")
"""Those with pictures, and with rows in the tables by magnitude, flag and range; CSV has all."""

LABELS = tuple(dict.fromkeys(label_of(name) for name in QUANTITIES))

MIN_STARS = 20
"""Bins and flags of fewer stars are left out: their scatter is uncertain by a sixth or more."""

MIN_GOOD = 50
"""With fewer good stars, bins, ranges and pictures are of all matched stars, and say so; with
fewer matched stars there are no ranges, with fewer than MIN_STARS no pictures."""

ALL, GOOD_PARAMS, GOOD_MASS_AGE = "all matched", "good_params", "good_mass_age"


@dataclass(frozen=True, eq=False)
class MatchedStars:
    """Stars (M,) of a run's catalog that a published one has too.

    Attributes
    ----------
    catalog_stars
        Number of all stars of the run's catalog.
    source_id, magnitude, flags
        Gaia identifiers, G, quality_flags.
    samples
        Which stars have good_params and good_mass_age, by name.
    ours, theirs
        Values and errors by label, of the run and of the published catalog.
    """

    catalog_stars: int
    source_id: Ids
    magnitude: NDArray[np.float64]
    flags: NDArray[np.int64]
    samples: Mapping[str, Mask]
    ours: Mapping[str, Measured]
    theirs: Mapping[str, Measured]

    def good(self, label: str) -> tuple[str, Mask]:
        """Return the name of the sample whose values of a label are good, and its stars."""
        name = GOOD_MASS_AGE if label in AGED else GOOD_PARAMS
        return name, self.samples[name]

    def shown(self, label: str) -> tuple[str, Mask]:
        """Return the sample that bins and pictures are of: good stars, or all if these are few."""
        name, rows = self.good(label)
        known = self.known(label)
        if (rows & known).sum() >= MIN_GOOD:
            return name, rows
        return ALL, np.ones(len(self.source_id), dtype=bool)

    def known(self, label: str) -> Mask:
        """Return the stars whose label both catalogs have."""
        return np.isfinite(self.ours[label].value) & np.isfinite(self.theirs[label].value)

    def scored(self, quantity: str, rows: Mask) -> Score:
        """Return the score of some stars (M,), the published values as the true ones."""
        return score(quantity, *self._pairs(quantity, rows))

    def deciles(self, quantity: str, rows: Mask) -> tuple[DecileScore, ...]:
        """Return the scores in ten ranges of the published value."""
        return by_decile(quantity, *self._pairs(quantity, rows))

    def _pairs(self, quantity: str, rows: Mask) -> tuple[NDArray[np.float64], ...]:
        label = label_of(quantity)
        ours, theirs = self.ours[label], self.theirs[label]
        return ours.value[rows], theirs.value[rows], ours.error[rows], theirs.error[rows]


@dataclass(frozen=True)
class PartScore:
    """The score of one quantity in one part of the matched stars.

    Attributes
    ----------
    part
        "sample", "flag" or "G".
    sample
        The stars: a sample, or those of it that have the flag or are in the bin.
    low, high
        Edges of the bin; NaN where there is none.
    """

    part: str
    quantity: str
    sample: str
    low: float
    high: float
    score: Score


@dataclass(frozen=True, eq=False)
class Comparison:
    """A run's catalog compared with a published one.

    Attributes
    ----------
    reference, stars
        The published catalog, and the matched stars.
    parts
        Scores of samples, by flag and by magnitude.
    shown
        By quantity, the sample that bins, ranges and pictures are of.
    deciles
        By quantity, the scores of that sample in ten ranges of the published value.
    """

    reference: ReferenceStars
    stars: MatchedStars
    parts: tuple[PartScore, ...]
    shown: Mapping[str, str]
    deciles: Mapping[str, tuple[DecileScore, ...]]

    def of(self, part: str) -> tuple[PartScore, ...]:
        """Return the scores of one kind of parts.

        Parameters
        ----------
        part
            "sample", "flag" or "G".
        """
        return tuple(one for one in self.parts if one.part == part)


def catalog_identifiers(folder: Path) -> Ids:
    """Return the identifiers of all stars of a finished catalog, ascending, each once.

    Parameters
    ----------
    folder
        A run folder.

    Raises
    ------
    InputError
        Not a finished catalog.
    """
    return np.unique(_dataset(folder).to_table(columns=["source_id"])["source_id"].to_numpy())


def compare(folder: Path, reference: ReferenceStars) -> Comparison:
    """Compare a finished catalog with a published one.

    Parameters
    ----------
    folder
        A run folder.
    reference
        The stars of the published catalog that the run has.

    Raises
    ------
    InputError
        Not a finished catalog.
    """
    stars = _matched(folder, reference)
    quantities = [name for name in QUANTITIES if label_of(name) in stars.theirs]
    quantities = [name for name in quantities if stars.known(label_of(name)).any()]
    parts = [one for name in quantities for one in _parts(name, stars)]
    shown, deciles = {}, {}
    for name in quantities:
        sample, rows = stars.shown(label_of(name))
        known = int((rows & stars.known(label_of(name))).sum())
        if known >= MIN_STARS:
            shown[name] = sample
        if known >= MIN_GOOD:
            deciles[name] = stars.deciles(name, rows)
    return Comparison(reference, stars, tuple(parts), shown, deciles)


def _parts(quantity: str, stars: MatchedStars) -> Iterator[PartScore]:
    nan, label = float("nan"), label_of(quantity)
    every = np.ones(len(stars.source_id), dtype=bool)
    name, good = stars.good(label)
    for sample, rows in ((ALL, every), (name, good)):
        yield PartScore("sample", quantity, sample, nan, nan, stars.scored(quantity, rows))
    known = stars.known(label)
    for flag in load_flags().flags:
        rows = (stars.flags & flag.value) != 0
        if (rows & known).sum() >= MIN_STARS:
            yield PartScore("flag", quantity, flag.name, nan, nan, stars.scored(quantity, rows))
    sample, rows = stars.shown(label)
    for low, high in pairwise(BINS["phot_g_mean_mag"]):
        in_bin = rows & (stars.magnitude >= low) & (stars.magnitude < high)
        if (in_bin & known).sum() >= MIN_STARS:
            yield PartScore("G", quantity, sample, low, high, stars.scored(quantity, in_bin))


def _matched(folder: Path, reference: ReferenceStars) -> MatchedStars:
    data = _dataset(folder)
    labels = [label for label in LABELS if label in reference.labels and label in data.schema.names]
    values = [name for label in labels for name in (label, f"e_{label}")]
    columns = ["source_id", "quality_flags", "good_params", "good_mass_age", "phot_g_mean_mag"]
    total, found = 0, []
    for batch in data.to_batches(columns=[*columns, *values]):
        ids = batch["source_id"].to_numpy()
        total += len(ids)
        place = np.searchsorted(reference.source_id, ids)
        place = np.minimum(place, max(len(reference.source_id) - 1, 0))
        if len(reference.source_id):
            found.append(batch.filter(pa.array(reference.source_id[place] == ids)))
    schema = pa.schema([data.schema.field(name) for name in (*columns, *values)])
    table = pa.Table.from_batches(found, schema)
    ids, first = np.unique(table["source_id"].to_numpy(), return_index=True)
    table, row = table.take(first), np.searchsorted(reference.source_id, ids)

    def numbers(name: str) -> NDArray[np.float64]:
        return np.asarray(table[name].cast(pa.float64()).to_numpy())

    return MatchedStars(
        total, ids, numbers("phot_g_mean_mag"), table["quality_flags"].to_numpy().astype(np.int64),
        {name: table[name].to_numpy() for name in (GOOD_PARAMS, GOOD_MASS_AGE)},
        {label: Measured(numbers(label), numbers(f"e_{label}")) for label in labels},
        {label: reference.labels[label].rows(row) for label in labels},
    )  # fmt: skip


def _dataset(folder: Path) -> ds.Dataset:
    try:
        return ds.dataset(Path(folder) / "catalog", format="parquet")
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            "no finished catalog", wanted="the folder that run wrote", found=error, where=folder
        ) from error
