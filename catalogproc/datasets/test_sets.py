"""Test sets: simulated stars with known labels, or real ones in files of the same layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.datasets.benchmark_stars import EXTRA, Benchmark, concatenated
from catalogproc.datasets.dataset import TEST, TRAIN
from catalogproc.datasets.dataset_parts import dataset_part, giants, is_dataset
from catalogproc.datasets.star_reader import StarFiles, all_inputs_job, read_stars
from catalogproc.errors import InputError, JobError, plural
from catalogproc.features.extinction import ln_ebv
from catalogproc.features.one_band import hide_band
from catalogproc.network.star_tokens import StarTokens
from catalogproc.readers.chunks import expand
from catalogproc.vocabulary import BANDS, Vocabulary

Floats = NDArray[np.floating]

PREFIXES = ("xp_continuous", "gaia_source", "truth")
"""The file names of a test set begin with these, as ``catalogproc simulate`` writes them."""


@dataclass(frozen=True)
class Simulated:
    """Stars to simulate.

    Attributes
    ----------
    stars, seed
        Their number and seed.
    corrected
        Whether they are corrected by real spectra, as those of the model's training were.
    """

    stars: int
    seed: int
    corrected: bool = False

    @classmethod
    def as_trained(cls, stars: int, seed: int, training: Mapping[str, Any]) -> Simulated:
        """Return stars such as the simulated ones of a training.

        Parameters
        ----------
        stars, seed
            Their number and seed.
        training
            Facts that the training's bundle records.
        """
        from catalogproc.simulation.simulator import corrected_stars

        return cls(stars, seed, corrected_stars(training))


def benchmark(
    folder: Path | None, otherwise: Simulated, vocabulary: Vocabulary, truth: bool = True
) -> Benchmark:
    """Return the stars of a folder, or simulated ones.

    Parameters
    ----------
    folder
        A folder for :func:`read_benchmark`, or a dataset of ``catalogproc dataset``, whose test
        part is taken: its giants with a spectrum, if it marks giants. None simulates stars.
    otherwise
        The stars to simulate.
    vocabulary
        Defines the tokens.
    truth
        Whether the folder must have true labels.
    """
    if folder is None:
        return simulated(otherwise, vocabulary)
    if is_dataset(folder):
        return giants(dataset_part(folder, TEST, vocabulary))
    return read_benchmark(folder, vocabulary, truth)


def training_stars(folder: Path | None, otherwise: Simulated, vocabulary: Vocabulary) -> Benchmark:
    """Return stars to fit a baseline on that is then evaluated on those of ``folder``.

    Parameters
    ----------
    folder
        A dataset, whose training part is taken: its giants with a spectrum, if it marks giants.
        For anything else stars are simulated.
    otherwise
        The stars to simulate.
    vocabulary
        Defines the tokens.
    """
    if is_dataset(folder):
        return giants(dataset_part(folder, TRAIN, vocabulary))
    return simulated(otherwise, vocabulary)


def simulated(wanted: Simulated, vocabulary: Vocabulary) -> Benchmark:
    """Return simulated giants; spectra and colours are the inputs, labels the truth.

    Parameters
    ----------
    wanted
        Their number and seed, and whether they are corrected.
    vocabulary
        Defines the tokens.
    """
    from catalogproc.simulation.simulator import Simulator

    n, seed = wanted.stars, wanted.seed
    stars = Simulator(corrected=wanted.corrected).draw(n, seed)
    values, errors = (matrix.numpy() for matrix in stars.tokens(vocabulary))
    names = ("teff", "logg", "m_h", "alpha_m", "mass", "log_age", "rc_prob")
    true = {name: stars[name].numpy() for name in names if name in stars.columns}
    true |= {"ebv": stars["ebv"].numpy(), "g_fakemag": 10 ** (0.2 * stars["mg"].numpy() + 2)}
    labels = vocabulary.columns(vocabulary.named("label"))
    values[:, labels], errors[:, labels] = np.nan, np.nan
    extra = {
        "phot_g_mean_mag": stars["g_mag"].numpy(),
        "parallax_over_error": (stars["parallax"] / stars["e_parallax"]).numpy(),
        "dist": stars["distance"].numpy(),
    }
    corrected = ", corrected by real spectra" if wanted.corrected else ""
    name = f"{n:,} simulated giants{corrected}, seed {seed}"
    truth = _dense_truth(true, n, vocabulary, values.dtype)
    one_band = {}
    for band in BANDS if vocabulary.basis == "canonical" else ():
        shown = StarTokens(*(x.numpy() for x in stars.tokens(vocabulary, hidden=band)))
        shown.values[:, labels] = np.nan
        one_band[band] = shown
    found = Benchmark(name, False, np.arange(n), values, errors, *truth, vocabulary, extra)
    return replace(found, one_band=one_band)


def read_benchmark(folder: Path, vocabulary: Vocabulary, truth: bool = True) -> Benchmark:
    """Read a folder that ``catalogproc simulate`` wrote, or real stars in the same layout.

    Files ``xp_continuous*`` are joined by source_id with ``gaia_source*`` (optional) and
    ``truth*``. The truth's columns are named as labels, or ``ebv`` for E(B-V) on the SFD scale,
    and may have errors ``e_NAME``. Stars without true labels are left out, unless ``truth`` is
    False and the folder has none at all.

    Parameters
    ----------
    folder
        Holds the files.
    vocabulary
        Defines the tokens.
    truth
        Whether true labels are required.

    Raises
    ------
    JobError
        The folder lacks a required file.
    InputError
        A file cannot be read, or no star has true labels.
    """
    files = _files(folder, ("xp_continuous", "truth") if truth else ("xp_continuous",))
    stars = read_stars_of(StarFiles(files["xp_continuous"], files["gaia_source"]), vocabulary)
    ids = stars.ids
    if not files["truth"]:
        return replace(stars, name=f"{plural(len(ids), 'star')} of {folder.name}")
    columns = _truth(files["truth"])
    order = np.argsort(columns["source_id"], kind="stable")
    place = np.searchsorted(columns["source_id"], ids, sorter=order).clip(max=len(order) - 1)
    row = order[place]
    known = columns["source_id"][row] == ids
    if not known.any():
        raise InputError("no star of the spectra has true labels", where=folder)
    true = {name: column[row[known]] for name, column in columns.items() if name != "source_id"}
    is_simulated = bool({"component", "phase"} & set(true))
    stars = stars.rows(known)
    distance = true["distance"] if "distance" in true else _distance(stars.extra, true)
    labels, label_errors = _dense_truth(true, len(stars), vocabulary, stars.values.dtype)
    return replace(
        stars, name=f"{plural(len(stars), 'star')} of {folder.name}", real=not is_simulated,
        truth=labels, truth_errors=label_errors, extra={**stars.extra, "dist": distance},
    )  # fmt: skip


def _files(folder: Path, required: Sequence[str]) -> dict[str, list[Path]]:
    """Return the files of a test set by prefix; raise JobError where a required one is missing."""
    found = [path for path in expand([folder]) if isinstance(path, Path)]
    files = {name: [p for p in found if p.name.startswith(name)] for name in PREFIXES}
    for name in required:
        if not files[name]:
            raise JobError(
                "the folder is no test set: spectra or true labels are missing",
                wanted=", ".join(f"{prefix}*" for prefix in PREFIXES),
                found=f"no {name}*",
                where=folder,
                advice="make one with catalogproc simulate, or name your files so",
            )
    return files


def _distance(extra: Mapping[str, Floats], true: dict[str, Floats]) -> Floats:
    """Return the distance in kpc (N,) from magnitude and pseudo-luminosity; NaN where unknown."""
    fakemag = true.get("g_fakemag", np.full(len(extra["phot_g_mean_mag"]), np.nan))
    return 10 ** (0.2 * extra["phot_g_mean_mag"]) / np.where(fakemag > 0, fakemag, np.nan)


def _dense_truth(
    true: dict[str, Floats], n: int, vocabulary: Vocabulary, dtype: np.dtype[Any]
) -> tuple[Floats, Floats]:
    """Return true labels and their errors (n, V), NaN where unknown.

    ``true`` has columns (n,) by the name of a label, ``ebv``, or ``e_`` and one of these.
    """
    truth = np.full((n, len(vocabulary)), np.nan, dtype=dtype)
    truth_errors = np.full_like(truth, np.nan)
    if "ebv" in true:
        relative = true.get("e_ebv", np.zeros(n)) / true["ebv"]
        true = {"logebv": ln_ebv(true["ebv"]), "e_logebv": relative} | true
    for label in vocabulary.named("label"):
        if label in true:
            column = vocabulary.column(label)
            truth[:, column] = true[label]
            error = true.get(f"e_{label}", np.zeros(n))
            truth_errors[:, column] = np.where(np.isfinite(truth[:, column]), error, np.nan)
    return truth, truth_errors


def read_stars_of(files: StarFiles, vocabulary: Vocabulary) -> Benchmark:
    """Read the tokens of all spectra that a run would not reject, without any true label.

    Parameters
    ----------
    files
        Spectra and auxiliary tables.
    vocabulary
        Defines the V tokens.
    """
    parts = []
    for good, made in read_stars(files, vocabulary, all_inputs_job(vocabulary)):
        unknown = np.full_like(made.values, np.nan)
        extra = (made.g_mag, made.parallax_zpc / made.e_parallax)
        one_band = {
            band: hide_band(made, good, band, vocabulary).network_inputs
            for band in (BANDS if vocabulary.basis == "canonical" else ())
        }
        parts.append(Benchmark(
            "stars", True, good.column("source_id").to_numpy(), made.values, made.errors,
            unknown, unknown, vocabulary, dict(zip(EXTRA, extra, strict=False)), None, one_band,
        ))  # fmt: skip
    return concatenated(parts)


def _truth(files: list[Path]) -> dict[str, NDArray[np.generic]]:
    """Return all numeric columns of the truth tables, NaN where null; source_id as int64."""
    from catalogproc.datasets.table_io import read_table

    table = pa.concat_tables([read_table(path) for path in files], promote_options="permissive")
    if "source_id" not in table.column_names or table["source_id"].type != pa.int64():
        raise InputError(
            "the truth has no source_id", wanted="source_id, an integer",
            found=", ".join(table.column_names), where=files[0],
        )  # fmt: skip
    table = table.filter(pc.is_valid(table["source_id"]))
    return {
        field.name: (
            table[field.name].to_numpy()
            if field.name == "source_id"
            else table[field.name].cast(pa.float64()).to_numpy()
        )
        for field in table.schema
        if pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    }
