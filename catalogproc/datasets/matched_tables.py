"""The tables of a dataset of real giants, and which of their rows are the same star."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalogproc.datasets import kepler
from catalogproc.datasets.apogee_library import Library, read_library
from catalogproc.datasets.benchmark_stars import Benchmark
from catalogproc.datasets.folds import TEST_FOLD, StarNames
from catalogproc.datasets.giant_labels import (
    SOURCE_COLUMNS,
    Labels,
    Stars,
    Teachers,
    atmospheres,
    evolution_labels,
    fit_teachers,
)
from catalogproc.datasets.seismic import (
    ATMOSPHERE,
    SeismicStars,
    SeismicTable,
    read_hasselquist,
    read_seismic,
)
from catalogproc.features.parallax import ASSUMED_ERROR, ASSUMED_ZERO_POINT
from catalogproc.resources import shipped

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

PARALLAXES = "library_parallaxes.parquet"
ROUNDING = 0.02
"""Parallaxes that are not corrected are rounded to multiples of this, mas."""


@dataclass(frozen=True, eq=False)
class MatchedTables:
    """All tables, and which rows of them are the same star.

    Attributes
    ----------
    library
        Stars with spectra.
    seismic
        Rows of the seismic tables.
    hasselquist
        Log ages of Hasselquist et al. (2020) and their errors.
    giants
        Kepler giants with photometry.
    star
        By table: the number of the star of each row, from 0 to ``count`` - 1.
    fold
        (count,) fold of each star.
    evaluates_infer
        (count,) whether the star is held out for the evaluation of `infer`.
    hold_out_seismic
        Whether stars of the library with a seismic mass, age or stage are for the test.
    """

    library: Library
    seismic: SeismicTable
    hasselquist: Mapping[str, Floats]
    giants: Benchmark
    star: Mapping[str, Rows]
    fold: NDArray[np.int8]
    evaluates_infer: NDArray[np.bool_]
    hold_out_seismic: bool

    @classmethod
    def read(cls, path: Path, hold_out_seismic: bool = False) -> MatchedTables:
        """Read all tables and find out which rows are the same star.

        Parameters
        ----------
        path
            The library.
        hold_out_seismic
            Whether stars of the library with a seismic mass, age or stage are for the test.
        """
        library, seismic = read_library(path), read_seismic()
        hasselquist_names, hasselquist = read_hasselquist()
        giants = kepler.kepler_giants()
        tables = {
            "library": library.names,
            "seismic": seismic.names,
            "hasselquist": hasselquist_names,
            "kepler": kepler.names_of(giants),
        }
        names = StarNames.concatenate(list(tables.values()))
        stars = names.stars()
        fold = np.zeros(int(stars.max()) + 1, dtype=np.int8)
        fold[stars] = names.folds(stars)
        ends = np.cumsum([len(table) for table in tables.values()])
        star = dict(zip(tables, np.split(stars, ends[:-1]), strict=True))
        evaluates = np.zeros(len(fold), dtype=bool)
        evaluates[star["kepler"][np.isin(giants.ids, kepler.parts()[1].ids)]] = True
        return cls(library, seismic, hasselquist, giants, star, fold, evaluates, hold_out_seismic)

    @cached_property
    def merged(self) -> SeismicStars:
        """Seismic masses, ages, stages and labels of each star."""
        return self.seismic.by_star(self.star["seismic"], len(self.fold))

    @cached_property
    def held_out(self) -> NDArray[np.bool_]:
        """Which stars (count,) are held out with the test fold."""
        held = self.fold == TEST_FOLD
        if self.hold_out_seismic:
            in_library = np.zeros(len(held), dtype=bool)
            in_library[self.star["library"]] = True
            measured = [np.isfinite(self.merged.values[name]) for name in SOURCE_COLUMNS]
            held = held | (in_library & np.any(measured, axis=0))
        return np.asarray(held)

    @cached_property
    def stars(self) -> Stars:
        """Folds, APOGEE's labels, and what is known of masses, ages and stages."""
        every = np.arange(len(self.fold))
        inputs = atmospheres(self.merged, every)
        own = np.stack([self.library.columns[name] for name in ATMOSPHERE], axis=1)
        inputs[self.star["library"]] = own
        ages = np.full((2, len(self.fold)), np.nan)
        # Of several spectra of a star the first.
        row = self.star["hasselquist"][::-1]
        ages[:, row] = np.stack([self.hasselquist[name][::-1] for name in ("log_age", "e_log_age")])
        teaches = ~self.held_out & ~self.evaluates_infer
        return Stars(self.fold, teaches, inputs, self.merged, (ages[0], ages[1]))

    @cached_property
    def teachers(self) -> Teachers:
        """The teachers of mass, log age and the probability of the red clump."""
        return fit_teachers(self.stars)

    @cached_property
    def labels(self) -> dict[str, Labels]:
        """Masses, log ages and probabilities of the red clump of all stars."""
        return evolution_labels(self.stars, self.teachers)

    @property
    def teacher_facts(self) -> dict[str, Any]:
        """How many stars each teacher was fitted on, and how good it is for stars not seen."""
        return {name: teacher.facts for name, teacher in self.teachers.items()}

    def label_only(self) -> Rows:
        """Return the numbers of the training stars with APOGEE's labels and without a spectrum.

        The stars of the seismic tables, except those that are held out, also for `infer`.
        """
        without = np.ones(len(self.fold), dtype=bool)
        without[self.star["library"]] = False
        inputs = self.stars.inputs
        without &= np.isfinite(inputs).all(axis=1) & ~self.held_out & ~self.evaluates_infer
        return np.unique(self.star["seismic"][without[self.star["seismic"]]])

    def giant_rows(self, star: Rows) -> Rows:
        """Return the row (n,) of each star in the table of Kepler giants, -1 where it has none.

        Parameters
        ----------
        star
            (n,) numbers of stars.
        """
        row = np.full(len(self.fold), -1, dtype=np.int64)
        row[self.star["kepler"]] = np.arange(len(self.giants.ids))
        return row[star]

    def names_of(self, star: Rows) -> StarNames:
        """Return names of stars of the seismic tables; of several rows the most complete one.

        Parameters
        ----------
        star
            (n,) numbers of stars.
        """
        names, stars = self.seismic.names, self.star["seismic"]
        named = names.designation.is_valid().to_numpy(zero_copy_only=False)
        order = np.lexsort((~named, names.source_id <= 0, stars))
        first = np.searchsorted(stars[order], star)
        return names.take(order[first])

    def parallaxes(self) -> tuple[Floats, Floats]:
        """Return parallaxes corrected for zero-points and their errors (N,), mas, of the library.

        Those that are not corrected in the table get the zero-point of a star of which no more
        is known than its magnitude. NaN where there is no parallax.
        """
        table = pq.read_table(shipped("grids") / PARALLAXES)
        parallax, error = (
            table[name].to_numpy().astype(np.float64) for name in ("parallax", "e_parallax")
        )
        corrected = table["corrected"].to_numpy()
        parallax = np.where(corrected, parallax, parallax - ASSUMED_ZERO_POINT)
        added = np.hypot(ASSUMED_ERROR, ROUNDING / np.sqrt(12.0))
        error = np.where(corrected, error, np.hypot(error, added))
        ids = table["source_id"].to_numpy()
        wanted = self.library.names.source_id
        place = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
        found = ids[place] == wanted
        return np.where(found, parallax[place], np.nan), np.where(found, error[place], np.nan)
