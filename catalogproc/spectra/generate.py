"""Files of spectra of stars with given tokens: what ``catalogproc generate`` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.datasets.table_io import read_table, read_units
from catalogproc.errors import JobError, plural
from catalogproc.evaluation.metrics import resolve_device
from catalogproc.features.table_inputs import TableInputs
from catalogproc.network.bundle import Bundle
from catalogproc.network.predictor import Predictor
from catalogproc.spectra.correlations import DRAWS, correlations
from catalogproc.spectra.files import check_name, model_facts, write_flux, write_spectra
from catalogproc.spectra.generated import TEN_PARSEC, apparent_magnitude, generate_spectra
from catalogproc.spectra.label_inputs import check_known, isochrone, label_tension, one_star
from catalogproc.spectra.plot import draw_spectra
from catalogproc.vocabulary import Vocabulary

Floats = NDArray[np.float64]

FEW = 1_000
"""Stars up to which correlations are computed by default."""

TENSION = 3.5
"""Labels farther from their prediction by the others, in units of its error, are inconsistent: one
simulated giant in a hundred has one."""


@dataclass(frozen=True)
class SpectraRequest:
    """Which spectra are generated, and where they are written.

    Attributes
    ----------
    labels, known
        Tokens of one star by name, and as ``NAME=VALUE``; they hold for every star.
    stars, isochrone
        A table of stars, or "AGE,M_H".
    distance, absolute
        Scale of the spectra: a distance in kpc, or 10 pc; by default over the G flux.
    draws
        Monte Carlo draws for correlations; 0 for none, None for 64 for up to 1,000 stars.
    output, flux, plot
        Files to write.
    """

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
        """Return the stars, one row each, with the tokens that hold for every star.

        Raises
        ------
        JobError
            No stars, two sets of stars, or a token that is given twice.
        """
        known = one_star(self.labels, self.known)
        if self.stars is not None and self.isochrone is not None:
            raise JobError("two sets of stars", wanted="--stars or --isochrone", found="both")
        if self.stars is None and self.isochrone is None:
            if not known.num_columns:
                raise JobError(
                    "no stars are named",
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
    def files(self) -> tuple[Path, ...]:
        """The files to write."""
        named = (self.output, self.flux, self.plot)
        return tuple(path for path in named if path is not None)

    @property
    def scale(self) -> str:
        """The scale in words."""
        if self.kpc is None:
            return "over the G flux"
        return "stars at 10 pc" if self.kpc == TEN_PARSEC else f"stars at {self.kpc:g} kpc"


def make_spectra(wanted: SpectraRequest, bundle: Bundle, device: str = "auto") -> list[str]:
    """Generate the spectra, write the files, and return lines of text about them.

    Parameters
    ----------
    wanted
        The stars and the files.
    bundle
        The trained model.
    device
        A torch device, or "auto".

    Raises
    ------
    JobError
        No file or no star is named.
    ContractError
        A table without a token.
    BundleError
        The model was not trained to predict spectra.
    """
    _check_files(wanted)
    inputs = _inputs(table := wanted.table(), wanted.stars, bundle.vocabulary)
    check_known([word.partition("=")[0].strip() for word in wanted.known], inputs)
    tokens, known = inputs.given_tokens, tuple(inputs.named.values())
    predictor = Predictor(bundle, resolve_device(device))
    spectra, extra, ids = generate_spectra(predictor, tokens), _numbers(table), _ids(table)
    written = f"{plural(len(ids), 'spectrum', 'spectra')} written to"
    lines = [
        f"{written} {', '.join(map(str, wanted.files))}",
        f"made from {', '.join(known)}; {wanted.scale}",
    ]
    error = None
    if wanted.kpc is not None:
        magnitude, error = apparent_magnitude(predictor, tokens, wanted.kpc)
        _check_magnitudes(magnitude)
        spectra = spectra.at_magnitude(magnitude)
        extra |= {"phot_g_mean_mag": magnitude, "e_phot_g_mean_mag": error}
        lines.append(_brightness(magnitude, error))
    tension = label_tension(predictor, tokens)
    extra["label_tension"] = np.abs(np.nan_to_num(tension[2])).max(axis=1)
    lines += _tension_lines(*tension, bundle.vocabulary)
    draws = DRAWS * (len(ids) <= FEW) if wanted.draws is None else wanted.draws
    if draws:
        spectra = replace(spectra, correlations=correlations(predictor, tokens, draws))
    covariances = f"coefficient covariances from {draws} Monte Carlo draws"
    lines.append(covariances if draws else "coefficient errors are independent")
    facts = model_facts(bundle) | bundle.vocabulary.basis_release.facts
    facts |= {"scale": wanted.scale, "draws": str(draws)}
    if wanted.output is not None:
        write_spectra(wanted.output, spectra, ids, extra, facts)
    if wanted.flux is not None:
        write_flux(wanted.flux, spectra, ids, facts, error)
    if wanted.plot is not None:
        title = f"XP spectra predicted by the model {bundle.name}, {wanted.scale}, 1 σ bands"
        draw_spectra(wanted.plot, spectra, _names(table, known), title)
    return lines


def _inputs(table: pa.Table, path: Path | None, vocabulary: Vocabulary) -> TableInputs:
    """The tokens of a table, in the units that its file states; ``path`` is None for no file."""
    units, where = (read_units(path), str(path)) if path else ({}, "the command line")
    return TableInputs.of(table, vocabulary, units=units, where=where)


def _check_magnitudes(magnitude: Floats) -> None:
    """Raise JobError unless every star has a magnitude."""
    if not np.isfinite(magnitude).all():
        raise JobError(
            "stars without a luminosity have no brightness",
            wanted="a positive g_fakemag, given or predicted, of every star",
            found=f"{np.isnan(magnitude).sum():,} of {len(magnitude):,} without",
            advice="leave them out, or generate spectra over the G flux",
        )


def _brightness(magnitude: Floats, error: Floats) -> str:
    """The magnitudes of N stars in words."""
    low, high, typical = np.nanmin(magnitude), np.nanmax(magnitude), np.nanmedian(error)
    shown = f"{low:.2f}" if len(magnitude) == 1 else f"{low:.2f} to {high:.2f}"
    return f"G = {shown} mag, ± {typical:.2f}"


def _tension_lines(mean: Floats, sigma: Floats, off: Floats, vocabulary: Vocabulary) -> list[str]:
    """Lines about stars (N, V) whose labels are inconsistent; see label_tension."""
    far = np.abs(np.nan_to_num(off))
    affected = int((far > TENSION).any(axis=1).sum())
    if not affected:
        return []
    row, column = np.unravel_index(np.argmax(far), far.shape)
    token = vocabulary.tokens[column]
    value = mean[row, column] + off[row, column] * sigma[row, column]
    which = "this star is" if len(far) == 1 else f"{affected:,} of {plural(len(far), 'star')} are"
    whose = "" if len(far) == 1 else f" of star {row + 1}"
    return [
        f"{which} unlike any training star: {token.name} = {value:.4g}{whose}, predicted from the"
        f" other labels {mean[row, column]:.4g} ± {sigma[row, column]:.2g} {token.unit}"
    ]


def _check_files(wanted: SpectraRequest) -> None:
    if not wanted.files:
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
    """The numeric columns that were given, except identifiers."""
    return {
        name: table[name].cast(pa.float64()).to_numpy()
        for name in table.column_names
        if name != "source_id"
        and (pa.types.is_floating(table[name].type) or pa.types.is_integer(table[name].type))
    }


def _ids(table: pa.Table) -> NDArray[np.int64]:
    """The identifiers of the stars, or their row numbers, from 1."""
    if "source_id" in table.column_names and table["source_id"].type == pa.int64():
        return np.asarray(table["source_id"].to_numpy())
    return np.arange(1, table.num_rows + 1, dtype=np.int64)


def _names(table: pa.Table, known: tuple[str, ...]) -> list[str]:
    """One line of text per star: the tokens that differ between stars."""
    columns = {name: table[name].to_pylist() for name in known}
    varying = [name for name, values in columns.items() if len(set(values)) > 1] or list(known)
    rows = range(table.num_rows)
    return [", ".join(f"{name} {columns[name][row]:.4g}" for name in varying[:3]) for row in rows]
