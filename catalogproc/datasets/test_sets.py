"""Stars with known answers: simulated ones, or real ones in files of the same layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.datasets.star_reader import everything, read_stars
from catalogproc.datasets.star_table import Table
from catalogproc.errors import InputError, JobError
from catalogproc.features.extinction import ln_ebv
from catalogproc.readers.chunks import expand
from catalogproc.vocabulary import Vocabulary

Floats = NDArray[np.floating]

OUTSIDE = "outside_domain"
"""Of a dataset's stars, beside: 1 where the labels are outside of what DistMass was trained on."""

BESIDE = ("phot_g_mean_mag", "parallax_over_error", "dist")
"""Magnitude, parallax over its error, distance in kpc: no tokens, but of interest to judges."""

PARTS = ("xp_continuous", "gaia_source", "truth")
"""Files of a folder begin with these, as ``catalogproc simulate`` names them."""


@dataclass(frozen=True, eq=False)
class Benchmark:
    """N stars: what a model may be given of them, and what is true.

    Attributes
    ----------
    real
        Whether they are real stars, whose truth is a measurement.
    ids
        (N,) identifiers.
    values, errors
        Dense tokens (N, V) that are seen, NaN where absent.
    truth, truth_errors
        Dense (N, V), the true labels, NaN where unknown; ``logebv`` and ``g_fakemag`` are those
        of the true E(B-V) and distance. Errors are 0 where the truth is known.
    beside
        What else is known of them, columns (N,) by name: BESIDE, where there are such, and of a
        dataset's stars OUTSIDE.
    """

    name: str
    real: bool
    ids: NDArray[np.int64]
    values: Floats
    errors: Floats
    truth: Floats
    truth_errors: Floats
    vocabulary: Vocabulary
    beside: Mapping[str, Floats] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, which: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Benchmark:
        """Some of the stars."""
        return Benchmark(
            self.name, self.real, self.ids[which], self.values[which], self.errors[which],
            self.truth[which], self.truth_errors[which], self.vocabulary,
            {name: column[which] for name, column in self.beside.items()},
        )  # fmt: skip

    def table(self) -> Table:
        """The stars to train on: what is seen, and what is true where nothing is seen."""
        known = np.isnan(self.values) & np.isfinite(self.truth)
        return Table(
            self.ids,
            np.where(known, self.truth, self.values),
            np.where(known, self.truth_errors, self.errors),
        )

    def split(self, fraction: float, seed: int) -> tuple[Benchmark, Benchmark]:
        """Two benchmarks, the second with about ``fraction`` of the stars, by identifier."""
        held = np.isin(self.ids, self.table().split(fraction, seed)[1].ids)
        return self.rows(~held), self.rows(held)


def benchmark(
    folder: Path | None, stars: int, seed: int, vocabulary: Vocabulary, truth: bool = True
) -> Benchmark:
    """The stars of a folder, or so many simulated ones.

    A folder is what :func:`read_benchmark` reads, or a dataset of ``catalogproc dataset``, of
    which the test part is taken. Without ``truth`` spectra alone will do.
    """
    if folder is None:
        return simulated(stars, seed, vocabulary)
    if _is_dataset(folder):
        return _part(folder, "test", vocabulary)
    return read_benchmark(folder, vocabulary, truth)


def training_stars(folder: Path | None, stars: int, seed: int, vocabulary: Vocabulary) -> Benchmark:
    """Stars that a method may be fitted on before it is judged on those of ``folder``.

    The training part of a dataset; else so many simulated ones.
    """
    if folder is not None and _is_dataset(folder):
        return _part(folder, "train", vocabulary)
    return simulated(stars, seed, vocabulary)


def _is_dataset(folder: Path) -> bool:
    from catalogproc.datasets.dataset import FACTS

    return (folder / FACTS).is_file()


def _part(folder: Path, name: str, vocabulary: Vocabulary) -> Benchmark:
    """One part of a dataset: spectra and colours are seen, the labels are the truth."""
    from catalogproc.datasets.dataset import dataset_columns, load_dataset, outside_domain

    table = load_dataset(folder, vocabulary, repeats=False)[name == "test"]
    columns = dataset_columns(
        folder,
        name,
        ("phot_g_mean_mag", "parallax_zpc", "e_parallax", "m_h", "distmass_bitmask"),
        repeats=False,
    )
    labels = vocabulary.columns(vocabulary.named("label"))
    seen, errors = table.values.copy(), table.errors.copy()
    truth, truth_errors = np.full_like(seen, np.nan), np.full_like(seen, np.nan)
    for given, true in ((seen, truth), (errors, truth_errors)):
        true[:, labels] = given[:, labels]
        given[:, labels] = np.nan
    parallax = columns["parallax_zpc"].astype(np.float64)
    beside = {
        "phot_g_mean_mag": columns["phot_g_mean_mag"],
        "parallax_over_error": parallax / columns["e_parallax"],
        "dist": 1.0 / np.where(parallax > 0, parallax, np.nan),
        OUTSIDE: outside_domain(columns["m_h"], columns["distmass_bitmask"]).astype(np.float64),
    }
    words = f"{len(table.ids):,} stars of {folder.name}, {name} part"
    return Benchmark(
        words, True, table.ids, seen, errors, truth, truth_errors, vocabulary, beside
    )  # fmt: skip


def simulated(n: int, seed: int, vocabulary: Vocabulary) -> Benchmark:
    """``n`` simulated giants; nothing but spectrum and colours is given of them."""
    from catalogproc.simulation.simulator import Simulator

    stars = Simulator().draw(n, seed)
    seen, errors = (matrix.numpy() for matrix in stars.tokens(vocabulary))
    true = {name: stars[name].numpy() for name in ("teff", "logg", "m_h", "mass", "log_age")}
    true |= {"ebv": stars["ebv"].numpy(), "g_fakemag": 10 ** (0.2 * stars["mg"].numpy() + 2)}
    labels = vocabulary.columns(vocabulary.named("label"))
    seen[:, labels], errors[:, labels] = np.nan, np.nan
    beside = {
        "phot_g_mean_mag": stars["g_mag"].numpy(),
        "parallax_over_error": (stars["parallax"] / stars["e_parallax"]).numpy(),
        "dist": stars["distance"].numpy(),
    }
    name = f"{n:,} simulated giants, seed {seed}"
    return _benchmark(name, False, np.arange(n), seen, errors, true, vocabulary, beside)


def read_benchmark(folder: Path, vocabulary: Vocabulary, truth: bool = True) -> Benchmark:
    """The stars of a folder as ``catalogproc simulate`` writes it, or real ones in its layout.

    Files ``xp_continuous*`` and, beside them, ``gaia_source*`` (which may be missing) and
    ``truth*``, joined by source_id; the truth's columns are named as labels, or ``ebv`` for
    E(B-V) on the SFD scale, and may have errors ``e_NAME``. Stars without a truth are left out,
    unless no ``truth`` is asked for and the folder has none: then nothing is known of any.

    Raises
    ------
    JobError
        The folder lacks a kind of file.
    InputError
        A file cannot be read; no star has a truth.
    """
    files = {part: [p for p in expand([folder]) if p.name.startswith(part)] for part in PARTS}
    for part in ("xp_continuous", "truth")[: 1 + truth]:
        if not files[part]:
            raise JobError(
                "the folder is no set of stars with known answers",
                wanted=", ".join(f"{name}*" for name in PARTS),
                found=f"no {part}*",
                where=folder,
                todo="make one with catalogproc simulate, or name your files so",
            )
    ids, seen, errors, beside = read_tokens(
        files["xp_continuous"], files["gaia_source"], vocabulary
    )
    if not files["truth"]:
        words = f"{len(ids):,} stars of {folder.name}"
        return _benchmark(words, True, ids, seen, errors, {}, vocabulary, beside)
    facts = _truth(files["truth"])
    order = np.argsort(facts["source_id"], kind="stable")
    place = np.searchsorted(facts["source_id"], ids, sorter=order).clip(max=len(order) - 1)
    row = order[place]
    known = facts["source_id"][row] == ids
    if not known.any():
        raise InputError("no star of the spectra has a truth", where=folder)
    true = {name: column[row[known]] for name, column in facts.items() if name != "source_id"}
    simulated = bool({"component", "phase"} & set(true))
    beside = {name: column[known] for name, column in beside.items()}
    beside["dist"] = true["distance"] if "distance" in true else _distance(beside, true)
    return _benchmark(
        f"{known.sum():,} stars of {folder.name}", not simulated, ids[known],
        seen[known], errors[known], true, vocabulary, beside,
    )  # fmt: skip


def _distance(beside: dict[str, Floats], true: dict[str, Floats]) -> Floats:
    """Distance in kpc (N,) of a magnitude and a pseudo-luminosity; NaN where unknown."""
    fake = true.get("g_fakemag", np.full(len(beside["phot_g_mean_mag"]), np.nan))
    return 10 ** (0.2 * beside["phot_g_mean_mag"]) / np.where(fake > 0, fake, np.nan)


def _benchmark(
    name: str,
    real: bool,
    ids: NDArray[np.int64],
    values: Floats,
    errors: Floats,
    true: dict[str, Floats],
    vocabulary: Vocabulary,
    beside: dict[str, Floats],
) -> Benchmark:
    """``true`` are columns (N,) by the name of a label, ``ebv``, or ``e_`` and one of these."""
    truth = np.full(values.shape, np.nan, dtype=values.dtype)
    truth_errors = np.full_like(truth, np.nan)
    if "ebv" in true:
        relative = true.get("e_ebv", np.zeros(len(ids))) / true["ebv"]
        true = {"logebv": ln_ebv(true["ebv"]), "e_logebv": relative} | true
    for label in vocabulary.named("label"):
        if label in true:
            column = vocabulary.column(label)
            truth[:, column] = true[label]
            error = true.get(f"e_{label}", np.zeros(len(ids)))
            truth_errors[:, column] = np.where(np.isfinite(truth[:, column]), error, np.nan)
    return Benchmark(name, real, ids, values, errors, truth, truth_errors, vocabulary, beside)


def read_tokens(
    spectra: list[Path], companion: list[Path], vocabulary: Vocabulary
) -> tuple[NDArray[np.int64], Floats, Floats, dict[str, Floats]]:
    """Identifiers (N,), values and errors (N, V) of the spectra that can be read, and besides
    them magnitude and parallax over error (N,), NaN where unknown."""
    parts = [
        (
            good.column("source_id").to_numpy(), made.values, made.errors, made.g_mag,
            made.parallax_zpc / made.e_parallax,
        )
        for good, made in read_stars(spectra, companion, vocabulary, everything(vocabulary))
    ]  # fmt: skip
    ids, values, errors, *others = (np.concatenate(part) for part in zip(*parts, strict=True))
    return ids, values, errors, dict(zip(BESIDE, others, strict=False))


def _truth(files: list[Path]) -> dict[str, NDArray[np.generic]]:
    """All numeric columns of the truth tables, NaN where null; source_id as int64."""
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
