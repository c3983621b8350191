"""Real stars in tables that are masked, united, nested and renamed, with the right answer known.

A case is made of a seed. It holds the truth, columns of the contracts with missing values as null,
and the same columns as somebody's table has them: under other names, in other units, scattered or
written out, with other stars' values behind masks. What is read must be the truth.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from support.xp_files import ARRAYS, COUNTS, real

from catalogproc.contract import load_contract
from catalogproc.readers.column_lookup import SUFFIXES

Dice = np.random.Generator

UNITS: dict[str, dict[str, float]] = {
    "deg": {"deg": 1, "rad": np.pi / 180, "arcmin": 60, "arcsec": 3600},
    "mas": {"mas": 1, "arcsec": 1e-3, "deg": 1e-3 / 3600},
    "mag": {"mag": 1, "mmag": 1e3},
    "um**-1": {"um-1": 1, "nm-1": 1e-3},
    "electron.s**-1": {"electron/s": 1, "ct/s": 1, "1/s": 1, "electron/ms": 1e-3},
}
"""By unit of the contract: units that a file may state, and what its numbers are then times."""

WRONG = {"deg": "mag", "mas": "kpc", "mag": "Jy", "um**-1": "K", "electron.s**-1": "mag"}
"""Units that cannot be converted."""

SCATTERED = {
    "coefficients": ("{b}_coefficients_{k}", "{b}_coeff_{k}", "{b}_coef_{k}", "{b}_{k}",
                     "{B}_COEFF_{k}", "{b}_coefficients[{k}]", "{b}_coefficient_{k1}"),
    "coefficient_errors": ("{b}_coefficient_errors_{k}", "e_{b}_coeff_{k}", "{b}_coeff_err_{k}",
                           "{b}_err_{k}", "E_{B}_COEF_{k}", "{b}_coeff_errors({k})",
                           "e_{b}_coefficients_{k1}"),
}  # fmt: skip
"""Names of the columns of single elements; k from 0, k1 from 1."""

TEXTS: tuple[Callable[[list[str]], str], ...] = (
    lambda words: f"({', '.join(words)})",
    lambda words: f"[{','.join(words)}]",
    lambda words: " ".join(words),
)

AUXILIARY: dict[str, Callable[[Dice, int], np.ndarray]] = {
    "ra": lambda dice, n: dice.uniform(0, 360, n),
    "dec": lambda dice, n: dice.uniform(-90, 90, n),
    "l": lambda dice, n: dice.uniform(0, 360, n),
    "b": lambda dice, n: dice.uniform(-90, 90, n),
    "phot_g_mean_mag": lambda dice, n: dice.uniform(9, 17, n),
    "phot_bp_mean_mag": lambda dice, n: dice.uniform(10, 18, n),
    "phot_rp_mean_mag": lambda dice, n: dice.uniform(8, 16, n),
    "phot_bp_mean_flux_over_error": lambda dice, n: dice.uniform(50, 500, n),
    "parallax": lambda dice, n: dice.uniform(-0.1, 3, n),
    "parallax_error": lambda dice, n: dice.uniform(0.01, 0.1, n),
    "nu_eff_used_in_astrometry": lambda dice, n: dice.uniform(1.2, 1.6, n),
    "pseudocolour": lambda dice, n: dice.uniform(1.2, 1.6, n),
    "ecl_lat": lambda dice, n: dice.uniform(-90, 90, n),
    "astrometric_params_solved": lambda dice, n: dice.choice([31, 95], n),
    "ruwe": lambda dice, n: dice.uniform(0.9, 2, n),
    "j_m": lambda dice, n: dice.uniform(7, 13, n),
    "j_msigcom": lambda dice, n: dice.uniform(0.02, 0.04, n),
    "h_m": lambda dice, n: dice.uniform(6, 12, n),
    "ks_m": lambda dice, n: dice.uniform(6, 12, n),
    "ks_msigcom": lambda dice, n: dice.uniform(0.02, 0.04, n),
    "ph_qual": lambda dice, n: dice.choice(["AAA", "ABU", "UUU"], n),
    "ebv": lambda dice, n: dice.uniform(0.01, 1, n),
    "e_ln_ebv": lambda dice, n: dice.uniform(0.1, 0.3, n),
}
"""Made-up values of gaia_source, in the contract's units."""

DECOYS = ("B", "V", "L", "ra_error", "dec_error", "parallax_over_error", "bp_rp", "solution_id",
          "distance", "G", "phot_g_mean_flux_error", "rv", "bp_standard_deviation")  # fmt: skip
"""Columns that must not be taken for another."""


@dataclass(frozen=True)
class Medium:
    """What a kind of table can hold.

    Attributes
    ----------
    units
        It states units.
    arrays
        It has columns of arrays.
    python
        It is no file: ``bp0`` is a token there.
    """

    units: bool = True
    arrays: bool = True
    python: bool = False


@dataclass(frozen=True)
class Disturbed:
    """A column as it is written.

    Attributes
    ----------
    name, label
        The contract's name, and the one in the table.
    values
        Numbers (N,) or (N, C), or text (N,); another star's where hidden.
    hidden
        Which of them are missing, of the same shape.
    unit
        As stated; empty for none.
    """

    name: str
    label: str
    values: np.ndarray
    hidden: np.ndarray
    unit: str = ""

    @property
    def shown(self) -> np.ndarray:
        """The values with NaN or None where hidden."""
        if self.values.dtype.kind in "iuf":
            return np.where(self.hidden, np.nan, self.values.astype(np.float64))
        return np.where(self.hidden, None, self.values.astype(object))


@dataclass(frozen=True)
class Case:
    """A disturbed table and the right answer.

    Attributes
    ----------
    spectra, auxiliary
        Columns as written; the rows of the two are different.
    truth, known, given
        Contracts xp_continuous (N rows, without correlations) and gaia_source, row by row the
        same stars: joined by identifiers, and as they stand in one table.
    wrong
        Why the table cannot be read, in words; empty where it must be read.
    """

    spectra: list[Disturbed]
    auxiliary: list[Disturbed]
    truth: pa.RecordBatch
    known: pa.Table
    given: pa.Table
    wrong: str = ""
    joined: list[Disturbed] = field(default_factory=list)


def make_case(dice: Dice, medium: Medium) -> Case:
    """Return a case: four to nine real stars with made-up photometry."""
    count = int(dice.integers(4, 10))
    table = real().take(pa.array(np.sort(dice.choice(1500, count, replace=False))))
    ids = table["source_id"].to_numpy()
    arrays = {name: np.array(table[name].to_pylist(), np.float64) for name in ARRAYS}
    names = [name for name in AUXILIARY if dice.random() < 0.6] or ["parallax"]
    made = {name: AUXILIARY[name](dice, count) for name in names}
    hidden = {name: _some(dice, count, 0.3) for name in names}
    lost = _lost_spectra(dice, count)
    nameless = _some(dice, count, 0.1, share=0.2)
    counts = {name: table[name].to_numpy() for name in COUNTS if dice.random() < 0.4}
    uncounted = {name: _some(dice, count, 0.3) for name in counts}
    truth = _truth(ids, nameless, arrays, lost)
    for name, values in counts.items():
        held = pa.array(values, pa.int16(), mask=uncounted[name])
        truth = truth.set_column(truth.schema.get_field_index(name), name, held)
    known = _known(ids, nameless, made, hidden)
    given = _known(ids, np.zeros(count, bool), made, hidden)

    wrong = WRONGS[int(dice.integers(len(WRONGS)))] if dice.random() < 0.15 else ""
    if wrong == "unit" and not medium.units:
        wrong = ""
    spectra = [_identifier(dice, ids, nameless)]
    for name in ARRAYS:
        spectra += _array(dice, medium, name, arrays[name], lost[name])
    for name, values in counts.items():
        behind = np.where(uncounted[name], np.roll(values, 1), values)
        spectra.append(Disturbed(name, _label(dice, name, ()), behind, uncounted[name]))
    plain = [_column(dice, medium, name, made[name], hidden[name]) for name in names]
    spectra, plain, wrong = _spoilt(dice, spectra, plain, wrong)
    joined = _with_decoys(dice, [*spectra, *plain], count)
    order = dice.permutation(count)
    apart = [_identifier(dice, ids, np.zeros(count, bool)), *plain]
    auxiliary = [replace(c, values=c.values[order], hidden=c.hidden[order]) for c in apart]
    return Case(spectra, _with_decoys(dice, auxiliary, count), truth, known, given, wrong, joined)


WRONGS = ("unit", "float", "case", "element")


def _spoilt(
    dice: Dice, spectra: list[Disturbed], plain: list[Disturbed], wrong: str
) -> tuple[list[Disturbed], list[Disturbed], str]:
    """The columns with something that must be refused."""
    if wrong == "unit":
        columns = load_contract("gaia_source")
        # The position serves the zero-point of the parallax, and is not read without it.
        position = ("ra",) if any(c.name == "parallax" for c in plain) else ()
        wanted = ("parallax", "phot_g_mean_mag", "j_m", *position)
        able = [c for c in plain if c.name in wanted]
        if not able:
            return spectra, plain, ""
        chosen = able[int(dice.integers(len(able)))]
        changed = replace(chosen, unit=WRONG[columns[chosen.name].unit])
        return spectra, [changed if c is chosen else c for c in plain], wrong
    if wrong == "float":
        ids = spectra[0]
        if ids.values.dtype.kind != "i":
            return spectra, plain, ""
        return [replace(ids, values=ids.values.astype(np.float64)), *spectra[1:]], plain, wrong
    if wrong == "case":
        chosen = next((c for c in spectra[1:] if c.name == "bp_coefficients"), None)
        if chosen is None or (len(chosen.values.shape) == 1 and chosen.label[3:] != "coefficients"):
            return spectra, plain, ""
        twins = [replace(chosen, label="BP_coefficients"),
                 replace(chosen, label="Bp_Coefficients")]  # fmt: skip
        return [c for c in spectra if c is not chosen] + twins, plain, wrong
    if wrong == "element":
        parts = [c for c in spectra if c.name == "rp_coefficients"]
        if len(parts) == 1:
            return spectra, plain, ""
        inner = sorted(parts, key=lambda c: int(re.findall(r"\d+", c.label)[-1]))[1:-1]
        gone = inner[int(dice.integers(len(inner)))]
        return [c for c in spectra if c is not gone], plain, wrong
    return spectra, plain, ""


def _some(dice: Dice, count: int, probability: float, share: float = 0.35) -> np.ndarray:
    if dice.random() > probability:
        return np.zeros(count, bool)
    return np.asarray(dice.random(count) < share)


def _lost_spectra(dice: Dice, count: int) -> dict[str, np.ndarray]:
    """Which elements (N, 55) of each array are missing: bands, arrays, or single elements."""
    lost = {name: np.zeros((count, 55), bool) for name in ARRAYS}
    for band in ("bp", "rp"):
        rows = _some(dice, count, 0.4)
        for kind in ("coefficients", "coefficient_errors"):
            lost[f"{band}_{kind}"][rows] = True
    if dice.random() < 0.15:
        lost[ARRAYS[int(dice.integers(4))]][int(dice.integers(count))] = True
    if dice.random() < 0.15:
        row, place = int(dice.integers(count)), int(dice.integers(55))
        for kind in ("coefficients", "coefficient_errors")[: int(dice.integers(1, 3))]:
            lost[f"bp_{kind}"][row, place] = True
    return lost


def _truth(
    ids: np.ndarray, nameless: np.ndarray, arrays: Mapping[str, np.ndarray],
    lost: Mapping[str, np.ndarray],
) -> pa.RecordBatch:  # fmt: skip
    made: dict[str, pa.Array] = {}
    for column in load_contract("xp_continuous").columns:
        if column.name == "source_id":
            made[column.name] = pa.array(ids, mask=nameless)
        elif column.name in ARRAYS:
            shown = np.where(lost[column.name], np.nan, arrays[column.name])
            rows = [None if np.isnan(row).all() else row for row in shown]
            made[column.name] = pa.array(rows, column.arrow_type)
        elif not column.name.endswith("correlations"):
            made[column.name] = pa.nulls(len(ids), column.arrow_type)
    made["row"] = pa.array(np.arange(len(ids)))
    made["fault"] = pa.nulls(len(ids), pa.string())
    return pa.RecordBatch.from_pydict(made)


def _known(
    ids: np.ndarray, nameless: np.ndarray, made: Mapping[str, np.ndarray],
    hidden: Mapping[str, np.ndarray],
) -> pa.Table:  # fmt: skip
    contract = load_contract("gaia_source")
    columns = {
        name: pa.array(values, mask=hidden[name] | nameless).cast(contract[name].arrow_type)
        for name, values in made.items()
    }
    return contract.assemble({"source_id": pa.array(ids, mask=nameless), **columns}, len(ids))


def _identifier(dice: Dice, ids: np.ndarray, nameless: np.ndarray) -> Disturbed:
    """source_id as integers, digits or designations, under one of its names."""
    form = dice.choice(["integer", "text", "designation"], p=[0.6, 0.2, 0.2])
    values: np.ndarray = np.where(nameless, np.roll(ids, 1), ids)
    if form != "integer":
        values = np.array([f"{'Gaia DR3 ' * (form == 'designation')}{star}" for star in values])
    label = "source_id" if form != "designation" or dice.random() < 0.5 else "designation"
    if dice.random() < 0.3:
        label = str(dice.choice(["SOURCE_ID", "gaia_source_id", "source_id_gaia", "Source_ID"]))
    return Disturbed("source_id", label, values, nameless)


def _array(
    dice: Dice, medium: Medium, name: str, values: np.ndarray, lost: np.ndarray
) -> list[Disturbed]:
    """An array of a spectrum: in one column, written out as text, or scattered."""
    behind = np.where(lost, np.roll(values, 1, axis=0), values)
    unit, factor = _unit(dice, medium, "electron.s**-1")
    column = Disturbed(name, _label(dice, name, ()), behind * factor, lost, unit)
    form = dice.choice(["array", "text", "scattered"], p=[0.5, 0.2, 0.3])
    if form == "scattered":
        return _scattered(dice, medium, column)
    if form == "array" and medium.arrays:
        return [column]
    style = TEXTS[int(dice.integers(len(TEXTS)))]
    shown = np.where(lost & ~lost.all(axis=1, keepdims=True), np.nan, column.values)
    texts = np.array([style([repr(float(x)) for x in row]) for row in shown])
    return [replace(column, values=texts, hidden=lost.all(axis=1))]


def _scattered(dice: Dice, medium: Medium, column: Disturbed) -> list[Disturbed]:
    band, _, kind = column.name.partition("_")
    patterns = [p for p in SCATTERED[kind] if not (medium.python and p == "{b}_err_{k}")]
    pattern = patterns[int(dice.integers(len(patterns)))]
    labels = [pattern.format(b=band, B=band.upper(), k=k, k1=k + 1) for k in range(55)]
    parts = [
        Disturbed(column.name, label, column.values[:, k], column.hidden[:, k], column.unit)
        for k, label in enumerate(labels)
    ]
    if dice.random() < 0.3:
        parts = [parts[k] for k in dice.permutation(55)]
    return parts


def _column(
    dice: Dice, medium: Medium, name: str, values: np.ndarray, hidden: np.ndarray
) -> Disturbed:
    column = load_contract("gaia_source")[name]
    behind = np.where(hidden, np.roll(values, 1), values)
    label = _label(dice, name, column.also)
    unit, factor = _unit(dice, medium, column.unit)
    if factor != 1:
        behind = behind * factor
    return Disturbed(name, label, behind, hidden, unit)


def _label(dice: Dice, name: str, also: tuple[str, ...]) -> str:
    """One of the names under which a column is read."""
    if len(name) == 1:
        return name
    label = str(dice.choice([name, *also])) if dice.random() < 0.4 else name
    if dice.random() < 0.2:
        label += str(dice.choice(SUFFIXES))
    return {0: label.upper(), 1: label.title()}.get(int(dice.integers(6)), label)


def _unit(dice: Dice, medium: Medium, unit: str) -> tuple[str, float]:
    if not medium.units or unit not in UNITS or dice.random() < 0.4:
        return "", 1.0
    chosen = str(dice.choice(list(UNITS[unit])))
    return chosen, UNITS[unit][chosen]


def _with_decoys(dice: Dice, columns: list[Disturbed], count: int) -> list[Disturbed]:
    """The columns in another order, with some that mean something else."""
    labels = {column.label.lower() for column in columns}
    decoys = [
        Disturbed("", name, dice.uniform(0, 20, count), np.zeros(count, bool))
        for name in dice.choice(DECOYS, 3, replace=False)
        if name.lower() not in labels
    ]
    mixed = [*columns, *decoys]
    if any(column.label == "ra" for column in columns):  # the exact name is preferred
        mixed.append(Disturbed("", "ra_xp", np.full(count, 99.0), np.zeros(count, bool)))
    return [mixed[k] for k in dice.permutation(len(mixed))]


def labels_of(columns: list[Disturbed]) -> dict[str, Any]:
    """The columns by label, for messages."""
    return {column.label: (column.unit, int(column.hidden.sum())) for column in columns}
