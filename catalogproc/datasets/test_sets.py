"""Test sets: simulated stars with known labels, or real ones in files of the same layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.datasets.star_reader import StarFiles, all_inputs_job, read_stars
from catalogproc.datasets.star_table import StarTable
from catalogproc.errors import InputError, JobError
from catalogproc.features.extinction import ln_ebv
from catalogproc.network.star_tokens import StarTokens
from catalogproc.readers.chunks import expand
from catalogproc.vocabulary import Vocabulary

Floats = NDArray[np.floating]

OUTSIDE = "outside_domain"
"""Extra column of a dataset's stars: 1 where the labels are outside DistMass's training domain."""

EXTRA = ("phot_g_mean_mag", "parallax_over_error", "dist")
"""Extra columns: magnitude, parallax over its error, distance in kpc. They are no tokens."""

PREFIXES = ("xp_continuous", "gaia_source", "truth")
"""The file names of a test set begin with these, as ``catalogproc simulate`` writes them."""


@dataclass(frozen=True, eq=False)
class Benchmark:
    """N stars with inputs for a model, and their true labels.

    Attributes
    ----------
    name
        Describes the stars, for titles.
    real
        Whether they are real stars, whose truth is a measurement.
    ids
        (N,) identifiers.
    values, errors
        (N, V) input tokens, NaN where absent.
    truth, truth_errors
        (N, V) true labels, NaN where unknown; ``logebv`` and ``g_fakemag`` are those of the true
        E(B-V) and distance. Errors are 0 where the truth is exact.
    vocabulary
        Defines the V tokens.
    extra
        Further columns (N,) by name: those of EXTRA that are known, and OUTSIDE for a dataset.
    """

    name: str
    real: bool
    ids: NDArray[np.int64]
    values: Floats
    errors: Floats
    truth: Floats
    truth_errors: Floats
    vocabulary: Vocabulary
    extra: Mapping[str, Floats] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def inputs(self) -> StarTokens:
        """The input tokens with their errors."""
        return StarTokens(self.values, self.errors)

    @property
    def labels(self) -> StarTokens:
        """The true labels with their errors."""
        return StarTokens(self.truth, self.truth_errors)

    def rows(self, which: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Benchmark:
        """Return some of the stars.

        Parameters
        ----------
        which
            Row numbers, a mask (N,) or a slice.
        """
        return Benchmark(
            self.name, self.real, self.ids[which], self.values[which], self.errors[which],
            self.truth[which], self.truth_errors[which], self.vocabulary,
            {name: column[which] for name, column in self.extra.items()},
        )  # fmt: skip

    def table(self) -> StarTable:
        """Return a table to train on: the inputs, and the truth where an input is absent."""
        known = np.isnan(self.values) & np.isfinite(self.truth)
        return StarTable(
            self.ids,
            np.where(known, self.truth, self.values),
            np.where(known, self.truth_errors, self.errors),
        )

    def split(self, fraction: float, seed: int) -> tuple[Benchmark, Benchmark]:
        """Split by identifier into two benchmarks.

        Parameters
        ----------
        fraction
            Fraction of the stars in the second one.
        seed
            Seed of the division.
        """
        in_second = np.isin(self.ids, self.table().split(fraction, seed)[1].ids)
        return self.rows(~in_second), self.rows(in_second)


def benchmark(
    folder: Path | None, stars: int, seed: int, vocabulary: Vocabulary, truth: bool = True
) -> Benchmark:
    """Return the stars of a folder, or simulated ones.

    Parameters
    ----------
    folder
        A folder for :func:`read_benchmark`, or a dataset of ``catalogproc dataset``, whose test
        part is taken; None simulates stars.
    stars, seed
        Number and seed of simulated stars.
    vocabulary
        Defines the tokens.
    truth
        Whether the folder must have true labels.
    """
    if folder is None:
        return simulated(stars, seed, vocabulary)
    if _is_dataset(folder):
        return _part(folder, "test", vocabulary)
    return read_benchmark(folder, vocabulary, truth)


def training_stars(folder: Path | None, stars: int, seed: int, vocabulary: Vocabulary) -> Benchmark:
    """Return stars to fit a baseline on that is then evaluated on those of ``folder``.

    Parameters
    ----------
    folder
        A dataset, whose training part is taken; for anything else stars are simulated.
    stars, seed
        Number and seed of simulated stars.
    vocabulary
        Defines the tokens.
    """
    if folder is not None and _is_dataset(folder):
        return _part(folder, "train", vocabulary)
    return simulated(stars, seed, vocabulary)


def _is_dataset(folder: Path) -> bool:
    from catalogproc.datasets.dataset import FACTS

    return (folder / FACTS).is_file()


def _part(folder: Path, name: str, vocabulary: Vocabulary) -> Benchmark:
    """Return one part of a dataset: spectra and colours are inputs, the labels are the truth."""
    from catalogproc.datasets.dataset import dataset_columns, load_dataset, outside_domain

    table = load_dataset(folder, vocabulary, repeats=False)[name == "test"]
    columns = dataset_columns(
        folder,
        name,
        ("phot_g_mean_mag", "parallax_zpc", "e_parallax", "m_h", "distmass_bitmask"),
        repeats=False,
    )
    labels = vocabulary.columns(vocabulary.named("label"))
    values, errors = table.values.copy(), table.errors.copy()
    truth, truth_errors = np.full_like(values, np.nan), np.full_like(values, np.nan)
    for inputs, true in ((values, truth), (errors, truth_errors)):
        true[:, labels] = inputs[:, labels]
        inputs[:, labels] = np.nan
    parallax = columns["parallax_zpc"].astype(np.float64)
    extra = {
        "phot_g_mean_mag": columns["phot_g_mean_mag"],
        "parallax_over_error": parallax / columns["e_parallax"],
        "dist": 1.0 / np.where(parallax > 0, parallax, np.nan),
        OUTSIDE: outside_domain(columns["m_h"], columns["distmass_bitmask"]).astype(np.float64),
    }
    title = f"{len(table.ids):,} stars of {folder.name}, {name} part"
    return Benchmark(
        title, True, table.ids, values, errors, truth, truth_errors, vocabulary, extra
    )  # fmt: skip


def simulated(n: int, seed: int, vocabulary: Vocabulary) -> Benchmark:
    """Return simulated giants; spectra and colours are the inputs, labels the truth.

    Parameters
    ----------
    n
        Number of stars.
    seed
        Seed of the simulation.
    vocabulary
        Defines the tokens.
    """
    from catalogproc.simulation.simulator import Simulator

    stars = Simulator().draw(n, seed)
    values, errors = (matrix.numpy() for matrix in stars.tokens(vocabulary))
    true = {
        name: stars[name].numpy() for name in ("teff", "logg", "m_h", "mass", "log_age", "rc_prob")
    }
    true |= {"ebv": stars["ebv"].numpy(), "g_fakemag": 10 ** (0.2 * stars["mg"].numpy() + 2)}
    labels = vocabulary.columns(vocabulary.named("label"))
    values[:, labels], errors[:, labels] = np.nan, np.nan
    extra = {
        "phot_g_mean_mag": stars["g_mag"].numpy(),
        "parallax_over_error": (stars["parallax"] / stars["e_parallax"]).numpy(),
        "dist": stars["distance"].numpy(),
    }
    name = f"{n:,} simulated giants, seed {seed}"
    truth = _dense_truth(true, n, vocabulary, values.dtype)
    return Benchmark(name, False, np.arange(n), values, errors, *truth, vocabulary, extra)


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
    ids, values, errors, extra = read_tokens(
        StarFiles(files["xp_continuous"], files["gaia_source"]), vocabulary
    )
    if not files["truth"]:
        name, unknown = f"{len(ids):,} stars of {folder.name}", np.full_like(values, np.nan)
        return Benchmark(name, True, ids, values, errors, unknown, unknown, vocabulary, extra)
    columns = _truth(files["truth"])
    order = np.argsort(columns["source_id"], kind="stable")
    place = np.searchsorted(columns["source_id"], ids, sorter=order).clip(max=len(order) - 1)
    row = order[place]
    known = columns["source_id"][row] == ids
    if not known.any():
        raise InputError("no star of the spectra has true labels", where=folder)
    true = {name: column[row[known]] for name, column in columns.items() if name != "source_id"}
    is_simulated = bool({"component", "phase"} & set(true))
    extra = {name: column[known] for name, column in extra.items()}
    extra["dist"] = true["distance"] if "distance" in true else _distance(extra, true)
    return Benchmark(
        f"{known.sum():,} stars of {folder.name}", not is_simulated, ids[known], values[known],
        errors[known], *_dense_truth(true, int(known.sum()), vocabulary, values.dtype),
        vocabulary, extra,
    )  # fmt: skip


def _files(folder: Path, required: Sequence[str]) -> dict[str, list[Path]]:
    """Return the files of a test set by prefix; raise JobError where a required one is missing."""
    files = {name: [p for p in expand([folder]) if p.name.startswith(name)] for name in PREFIXES}
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


def _distance(extra: dict[str, Floats], true: dict[str, Floats]) -> Floats:
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


def read_tokens(
    files: StarFiles, vocabulary: Vocabulary
) -> tuple[NDArray[np.int64], Floats, Floats, dict[str, Floats]]:
    """Read the tokens of all spectra that a run would not reject.

    Parameters
    ----------
    files
        Spectra and auxiliary tables.
    vocabulary
        Defines the V tokens.

    Returns
    -------
    ids
        (N,) source_id.
    values, errors
        (N, V), NaN where absent.
    extra
        Magnitude and parallax over error (N,) by name, NaN where unknown.
    """
    parts = [
        (
            good.column("source_id").to_numpy(), tokens.values, tokens.errors, tokens.g_mag,
            tokens.parallax_zpc / tokens.e_parallax,
        )
        for good, tokens in read_stars(files, vocabulary, all_inputs_job(vocabulary))
    ]  # fmt: skip
    ids, values, errors, *extra = (np.concatenate(part) for part in zip(*parts, strict=True))
    return ids, values, errors, dict(zip(EXTRA, extra, strict=False))


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
