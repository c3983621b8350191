"""From what is known of stars to files of their spectra: what ``catalogproc generate`` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc import __version__
from catalogproc.datasets.table_io import read_table, read_units
from catalogproc.errors import JobError
from catalogproc.evaluation.metrics import resolve_device
from catalogproc.features.table_inputs import TableInputs
from catalogproc.network.bundle import Bundle
from catalogproc.network.predictor import Predictor
from catalogproc.spectra.correlations import DRAWS, correlations
from catalogproc.spectra.files import check_name, write_flux, write_spectra
from catalogproc.spectra.generated import TEN_PARSEC, apparent_magnitude, generate_spectra
from catalogproc.spectra.label_inputs import isochrone, one_star, unlikely
from catalogproc.spectra.plot import draw_spectra
from catalogproc.vocabulary import Vocabulary

Floats = NDArray[np.float64]

FEW = 1_000
"""Stars of which correlations are found without being asked for."""

TENSION = 3.5
"""Labels that lie farther from what the others let expect, in its error, do not go together: one
giant in a hundred, as they are simulated, has one."""


@dataclass(frozen=True)
class Wanted:
    """Stars, by ``labels`` and ``known`` words, a table of ``stars`` or an ``isochrone``
    ("AGE,M_H"); the scale of their spectra, the draws for correlations (0: none; None: some
    for few stars), and the files that are asked for."""

    labels: Mapping[str, float]
    known: tuple[str, ...] = ()
    stars: Path | None = None
    isochrone: str | None = None
    distance: float | None = None
    absolute: bool = False
    draws: int | None = None
    output: Path | None = None
    flux: Path | None = None
    plot: Path | None = None

    def table(self) -> pa.Table:
        """The stars, a row each; what is known of one star stands in every row.

        Raises JobError where no star is named, where they are named in two ways, or where a
        label is a column of the table already.
        """
        known = one_star(self.labels, self.known)
        if self.stars is not None and self.isochrone is not None:
            raise JobError("two sets of stars", wanted="--stars or --isochrone", found="both")
        if self.stars is None and self.isochrone is None:
            if not known.num_columns:
                raise JobError(
                    "which stars?",
                    wanted="labels (--teff 4700 ...), --stars TABLE or --isochrone AGE,M_H",
                    found="none of them",
                )
            return known
        many = read_table(self.stars) if self.stars else isochrone(*_pair(self.isochrone or ""))
        for name in known.column_names:
            if name in many.column_names:
                raise JobError("a label that the stars have already", found=name)
            repeated = pa.array(np.repeat(known[name].to_numpy(), many.num_rows))
            many = many.append_column(name, repeated)
        return many

    @property
    def kpc(self) -> float | None:
        """The distance of the scale, None for spectra over the G flux."""
        if self.absolute and self.distance is not None:
            raise JobError("two scales", wanted="--absolute or --distance", found="both")
        if self.distance is not None and not self.distance > 0:
            raise JobError(
                "a distance", wanted="above 0 kpc", found=self.distance, where="--distance"
            )
        return TEN_PARSEC if self.absolute else self.distance

    @property
    def scale(self) -> str:
        """For people."""
        if self.kpc is None:
            return "over the G flux"
        return "stars at 10 pc" if self.kpc == TEN_PARSEC else f"stars at {self.kpc:g} kpc"


def make(wanted: Wanted, bundle: Bundle, device: str = "auto") -> list[str]:
    """Make the spectra and write the files; what was done, for people.

    Raises
    ------
    JobError
        No file is asked for, or no star is named; a name that is no token.
    BundleError
        The model was not trained to answer spectra.
    """
    _check_files(wanted)
    table, where = wanted.table(), str(wanted.stars or "the command line")
    units = read_units(wanted.stars) if wanted.stars else {}
    inputs = TableInputs.of(table, bundle.vocabulary, units=units, where=where)
    values, known = inputs.given_values, tuple(inputs.named.values())
    predictor = Predictor(bundle, resolve_device(device))
    spectra, extra, ids = generate_spectra(predictor, values), _numbers(table), _ids(table)
    error, said = None, [f"{_count(len(ids))} from {', '.join(known)}, {wanted.scale}"]
    if wanted.kpc is not None:
        magnitude, error = apparent_magnitude(predictor, values, wanted.kpc)
        spectra = spectra.at_magnitude(magnitude)
        extra |= {"phot_g_mean_mag": magnitude, "e_phot_g_mean_mag": error}
        said.append(_brightness(magnitude, error))
        if not np.isfinite(magnitude).all():
            raise JobError(
                "stars without a luminosity have no brightness",
                wanted="a positive g_fakemag, known or answered, of every star",
                found=f"{np.isnan(magnitude).sum():,} of {len(ids):,} without",
                advice="leave them out, or ask for spectra over the G flux",
            )
    tension = unlikely(predictor, values)
    extra["label_tension"] = np.abs(np.nan_to_num(tension[2])).max(axis=1)
    said += _strange(*tension, bundle.vocabulary)
    draws = wanted.draws if wanted.draws is not None else DRAWS * (len(ids) <= FEW)
    if draws:
        spectra = replace(spectra, correlations=correlations(predictor, values, draws))
        said.append(f"errors of coefficients go together, by {draws} draws")
    else:
        said.append("errors of coefficients are taken as independent")
    facts = {"catalogproc": __version__, "model": bundle.name, "model_hash": bundle.hash}
    facts |= {"scale": wanted.scale, "draws": str(draws)}
    if wanted.output is not None:
        write_spectra(wanted.output, spectra, ids, extra, facts)
    if wanted.flux is not None:
        write_flux(wanted.flux, spectra, ids, facts, error)
    if wanted.plot is not None:
        title = f"XP spectra by {bundle.name}, {wanted.scale}, 1 σ bands"
        draw_spectra(wanted.plot, spectra, _names(table, known), title)
    files = [str(path) for path in (wanted.output, wanted.flux, wanted.plot) if path is not None]
    return [*said, *files]


def _count(stars: int) -> str:
    return "1 spectrum" if stars == 1 else f"{stars:,} spectra"


def _brightness(magnitude: Floats, error: Floats) -> str:
    """The magnitudes of N stars, for people."""
    low, high, typical = np.nanmin(magnitude), np.nanmax(magnitude), np.nanmedian(error)
    shown = f"{low:.2f}" if len(magnitude) == 1 else f"{low:.2f} to {high:.2f}"
    return f"G = {shown} mag, ± {typical:.2f}"


def _strange(mean: Floats, sigma: Floats, off: Floats, vocabulary: Vocabulary) -> list[str]:
    """Stars (N, V) whose labels do not go together, for people; see stars.unlikely."""
    far = np.abs(np.nan_to_num(off))
    strange = int((far > TENSION).any(axis=1).sum())
    if not strange:
        return []
    row, column = np.unravel_index(np.argmax(far), far.shape)
    token = vocabulary.tokens[column]
    value = mean[row, column] + off[row, column] * sigma[row, column]
    which = "this star is" if len(far) == 1 else f"{strange:,} of {len(far):,} stars are"
    whose = "" if len(far) == 1 else f" of star {row + 1}"
    return [
        f"{which} of no kind that the model has seen: {token.name} = {value:.4g}{whose}, where"
        f" {mean[row, column]:.4g} ± {sigma[row, column]:.2g} {token.unit} is expected of the rest"
    ]


def _check_files(wanted: Wanted) -> None:
    if wanted.output is None and wanted.flux is None and wanted.plot is None:
        raise JobError(
            "no file to write", wanted="--output, --flux or --plot", found="none of them"
        )
    for path, where in ((wanted.output, "--output"), (wanted.flux, "--flux")):
        if path is not None:
            check_name(path, where)
    if wanted.plot is not None and wanted.plot.suffix.lower() != ".png":
        raise JobError("a picture is a PNG", wanted="NAME.png", found=wanted.plot.name,
                       where="--plot")  # fmt: skip


def _pair(words: str) -> tuple[float, float]:
    try:
        age, m_h = (float(word) for word in words.split(","))
    except ValueError:
        raise JobError(
            "an isochrone", wanted="AGE,M_H, as in 5,-0.2", found=words, where="--isochrone"
        ) from None
    return age, m_h


def _numbers(table: pa.Table) -> dict[str, Floats]:
    """The numeric columns of what was given, but for identifiers."""
    return {
        name: table[name].cast(pa.float64()).to_numpy()
        for name in table.column_names
        if name != "source_id"
        and (pa.types.is_floating(table[name].type) or pa.types.is_integer(table[name].type))
    }


def _ids(table: pa.Table) -> NDArray[np.int64]:
    """The stars' identifiers, or their row, from 1, where they have none."""
    if "source_id" in table.column_names and table["source_id"].type == pa.int64():
        return np.asarray(table["source_id"].to_numpy())
    return np.arange(1, table.num_rows + 1, dtype=np.int64)


def _names(table: pa.Table, known: tuple[str, ...]) -> list[str]:
    """A line of words for each star: what it was made of, where that differs between stars."""
    columns = {name: table[name].to_pylist() for name in known}
    telling = [name for name, values in columns.items() if len(set(values)) > 1] or list(known)
    rows = range(table.num_rows)
    return [", ".join(f"{name} {columns[name][row]:.4g}" for name in telling[:3]) for row in rows]
