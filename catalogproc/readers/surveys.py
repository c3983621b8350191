"""Read the surveys that labels come from: APOGEE's allStar and its value-added catalog DistMass.

The published layouts are read (SDSS DR17; DistMass v1.6.1, Stone-Martinez et al. 2024), in batches,
in any format of open_table. The values that mean "not measured" there (99.999, -9999, 0, NaN)
become NaN or null; flags are returned as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.errors import InputError, JobError
from catalogproc.readers import coerce
from catalogproc.readers.column_lookup import check_identifier, check_type, named, shortened
from catalogproc.readers.formats import Table, open_table

Float = NDArray[np.float64]
Names = TypeVar("Names", "ApogeeColumns", "DistMassColumns")

NOT_MEASURED = -9998.0
"""SDSS writes -9999 (some releases -9999.99) for a number that is not known."""

NO_MAGNITUDE = 90.0
"""2MASS magnitudes, and their errors, are 99.999 where there are none."""

YEARS_PER_GYR = 1e9
_DISTINCT_DEX, _DISTINCT_YEARS = 3.0, 1e5  # no error in dex is larger, no age in years smaller


@dataclass(frozen=True)
class ApogeeColumns:
    """What APOGEE's allStar calls its columns (DR17). An empty name is a column not to read."""

    apogee_id: str = "APOGEE_ID"
    source_id: str = "GAIAEDR3_SOURCE_ID"
    teff: str = "TEFF"
    e_teff: str = "TEFF_ERR"
    logg: str = "LOGG"
    e_logg: str = "LOGG_ERR"
    m_h: str = "M_H"
    e_m_h: str = "M_H_ERR"
    j_m: str = "J"
    j_msigcom: str = "J_ERR"
    h_m: str = "H"
    h_msigcom: str = "H_ERR"
    ks_m: str = "K"
    ks_msigcom: str = "K_ERR"
    aspcapflag: str = "ASPCAPFLAG"
    starflag: str = "STARFLAG"
    extratarg: str = "EXTRATARG"
    snr: str = "SNR"


@dataclass(frozen=True)
class DistMassColumns:
    """What DistMass calls its columns (v1.6.1), and their units. An empty name is not read.

    ``age_unit`` is "yr", "Gyr" or "dex" (log10 of years); ``age_error_unit`` "dex", "yr" or
    "Gyr". v1.6.1 has ages in years, and their errors in dex, upward and downward in one column.
    """

    apogee_id: str = "APOGEE_ID"
    source_id: str = ""
    mass: str = "MASS"
    e_mass: str = "MASS_ERR"
    age: str = "AGE_UNCOR_SS"
    e_age: str = "AGE_ERR"
    bitmask: str = "BITMASK"
    teff: str = "TEFF"
    distance: str = "WEIGHTED_DIST"
    age_unit: str = "yr"
    age_error_unit: str = "dex"

    def __post_init__(self) -> None:
        for name, known in (("age_unit", ("yr", "Gyr", "dex")),
                            ("age_error_unit", ("dex", "yr", "Gyr"))):  # fmt: skip
            if getattr(self, name) not in known:
                raise JobError(
                    "a unit that ages do not have",
                    wanted=" | ".join(known), found=getattr(self, name), where=name,
                )  # fmt: skip


_UNITS = ("age_unit", "age_error_unit")
_INTEGERS = {"aspcapflag", "starflag", "extratarg", "bitmask"}
_POSITIVE = {"teff", "mass", "age", "distance", "snr"}


def renamed(names: Names, words: tuple[str, ...] | list[str]) -> Names:
    """Return column names of which some are replaced.

    Parameters
    ----------
    names
        The published names.
    words
        Replacements such as ``mass=MASS_COR``.

    Raises
    ------
    JobError
        A word is not a replacement of a known name.
    """
    known = [field.name for field in fields(names)]
    changes = {}
    for word in words:
        ours, separator, theirs = word.partition("=")
        if ours not in known or not separator:
            raise JobError(
                "no such column to rename",
                wanted="NAME=COLUMN with NAME one of " + ", ".join(known), found=word,
            )  # fmt: skip
        changes[ours] = theirs
    return replace(names, **changes)


def read_apogee(
    path: str | Path, names: ApogeeColumns | None = None, batch_rows: int = 65_536
) -> Iterator[pa.RecordBatch]:
    """Read APOGEE's allStar, one row per spectrum, in the file's order.

    Parameters
    ----------
    path
        The file.
    names
        Its column names; by default those of DR17.
    batch_rows
        Rows per batch.

    Yields
    ------
    RecordBatch
        ``apogee_id`` and ``designation`` (strings, null where there is none);
        ``source_id`` (int64, null where Gaia has no such star: the file says 0);
        ``teff`` [K], ``logg``, ``m_h``, ``j_m``, ``h_m``, ``ks_m`` [mag] and their errors,
        ``snr`` (float64, NaN where not measured); ``aspcapflag``, ``starflag``,
        ``extratarg`` (int64). A magnitude's error is NaN where the magnitude is.

    Raises
    ------
    InputError
        The file cannot be read, lacks a column, or keeps its source_id as a float.
    """
    names = names or ApogeeColumns()
    for rows in _rows(path, names, batch_rows, optional=("extratarg", "snr")):
        for band in ("j_m", "h_m", "ks_m"):
            error = f"{band[:-2]}_msigcom"
            rows[error] = np.where(np.isnan(rows[band]), np.nan, rows[error])
        yield pa.RecordBatch.from_pydict(rows)


def read_distmass(
    path: str | Path, names: DistMassColumns | None = None, batch_rows: int = 65_536
) -> Iterator[pa.RecordBatch]:
    """Read DistMass, one row per spectrum, in the file's order.

    Parameters
    ----------
    path
        The file.
    names
        Its column names and units; by default those of v1.6.1.
    batch_rows
        Rows per batch.

    Yields
    ------
    RecordBatch
        ``apogee_id`` and ``designation`` (strings); ``source_id`` (int64, null unless such a
        column was named); ``mass`` and ``e_mass`` [solar masses], ``log_age`` and
        ``e_log_age`` [dex, of years], ``teff`` [K] and ``distance`` as given (float64, NaN
        where not known); ``bitmask`` (int64). The error of an age that has one upward and one
        downward is their mean; 0 and -9999 mean missing.

    Raises
    ------
    InputError
        The file cannot be read, lacks a column, or its ages are in another unit than said.
    """
    names = names or DistMassColumns()
    for rows in _rows(path, names, batch_rows, optional=("teff", "distance", "source_id")):
        age, error = rows.pop("age"), rows.pop("e_age")
        _check_units(path, names, age, error)
        with np.errstate(invalid="ignore", divide="ignore"):
            years = age * (YEARS_PER_GYR if names.age_unit == "Gyr" else 1.0)
            rows["log_age"] = age if names.age_unit == "dex" else np.log10(years)
            if names.age_error_unit != "dex":
                wide = YEARS_PER_GYR if names.age_error_unit == "Gyr" else 1.0
                error = error * wide / (np.log(10.0) * 10.0 ** rows["log_age"])
        rows["e_log_age"] = np.where(np.isnan(rows["log_age"]), np.nan, error)
        rows["e_mass"] = np.where(np.isnan(rows["mass"]), np.nan, rows["e_mass"])
        yield pa.RecordBatch.from_pydict(rows)


def designations(apogee_ids: pa.Array) -> pa.Array:
    """Return the 2MASS-style designations of APOGEE_IDs.

    Parameters
    ----------
    apogee_ids
        Names (N,), such as 2M00000002+7417074.

    Returns
    -------
    Array
        The 16 characters (N,) after "2M", "AP" and the like, which Leung & Bovy (2024) keep;
        null for a name of another form.
    """
    length = pc.utf8_length(apogee_ids)
    found = pa.nulls(len(apogee_ids), pa.string())
    for whole, start in ((18, 2), (17, 1), (16, 0)):
        cut = pc.utf8_slice_codeunits(apogee_ids, start)
        found = pc.if_else(pc.fill_null(pc.equal(length, whole), False), cut, found)
    return found


def _rows(
    path: str | Path, names: Any, batch_rows: int, optional: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """Our columns of a survey's table, in pieces."""
    table = open_table(Path(path))
    wanted = {
        field.name: getattr(names, field.name)
        for field in fields(names)
        if field.name not in _UNITS and getattr(names, field.name)
    }
    held = {ours: _holder(table, theirs) for ours, theirs in wanted.items()}
    missing = [wanted[ours] for ours in held if held[ours] is None and ours not in optional]
    if missing:
        raise InputError(
            "columns are missing",
            wanted=", ".join(missing),
            found=shortened(table.types),
            where=table.path,
            advice="other versions name them otherwise: say how with NAME=COLUMN",
        )
    present = {ours: found for ours, found in held.items() if found is not None}
    for ours, theirs in present.items():
        _check_type(table, ours, theirs)
    read = list(dict.fromkeys(present.values()))
    for part in table.batches(read, batch_rows=batch_rows):
        content = dict(zip(read, part.columns.columns, strict=True))
        count = len(part.columns)
        yield {
            name: value
            for field in fields(names)
            if field.name not in _UNITS
            for name, value in _read(field.name, present, content, count).items()
        }


def _holder(table: Table, name: str) -> str | None:
    return name if name in table.types else named(table, name.lower())


def _check_type(table: Table, ours: str, theirs: str) -> None:
    kind = coerce.stored_type(table.types[theirs])
    if ours == "source_id":
        check_identifier(table, theirs)
    elif ours == "apogee_id":
        check_type(table, theirs, "text", coerce.is_text(kind))
    elif ours != "e_age" or not coerce.is_list(kind):
        check_type(table, theirs, "a number", coerce.is_number(kind) or coerce.is_text(kind))


def _read(
    ours: str, present: Mapping[str, str], content: Mapping[str, Any], count: int
) -> dict[str, Any]:
    """Our column, and what follows from it, of some rows."""
    array = content[present[ours]] if ours in present else None
    if ours == "apogee_id":
        text = coerce.words(array)
        return {"apogee_id": text, "designation": designations(text)}
    if ours == "source_id":
        if array is None:
            return {ours: pa.nulls(count, pa.int64())}
        ids, _ = coerce.identifiers(array)
        # 0 and -9999 stand for no star, and 1 is none either.
        return {ours: pc.if_else(pc.greater(ids, 1), ids, pa.scalar(None, pa.int64()))}
    if ours in _INTEGERS:
        if array is None:
            return {ours: np.zeros(count, np.int64)}
        found, _ = coerce.numbers(array, pa.int64())
        return {ours: pc.fill_null(found, 0)}
    if array is None:
        return {ours: np.full(count, np.nan)}
    if coerce.is_list(array.type):
        return {ours: _mean_of_two(array, count)}
    return {ours: _measured(ours, _floats(array))}


def _floats(array: Any) -> Float:
    values, _ = coerce.numbers(array, pa.float64())
    return np.array(values.to_numpy(zero_copy_only=False), dtype=np.float64)


def _measured(ours: str, value: Float) -> Float:
    """The numbers with NaN for everything that stands for "not measured" in this column."""
    with np.errstate(invalid="ignore"):
        absent = ~np.isfinite(value) | (value <= NOT_MEASURED)
        if ours.endswith(("_m", "_msigcom")):
            absent |= value >= NO_MAGNITUDE
        if ours.endswith("_m"):
            absent |= value == 0
        elif ours in _POSITIVE or ours.startswith("e_") or ours.endswith("_msigcom"):
            absent |= value <= 0  # an error of nothing would weigh infinitely much
    return np.where(absent, np.nan, value)


def _mean_of_two(array: Any, count: int) -> Float:
    """The mean size (N,) of an error upward and an error downward, whatever their signs."""
    array = array.cast(pa.list_(pa.float64()))
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    both = np.flatnonzero(lengths == 2)
    pairs = array.take(pa.array(both)).flatten().to_numpy(zero_copy_only=False).reshape(-1, 2)
    size = np.abs(pairs)
    good = (np.isfinite(pairs) & (size > 0) & (size < -NOT_MEASURED)).all(axis=1)
    value = np.full(count, np.nan)
    value[both[good]] = size[good].mean(axis=1)
    return value


def _check_units(path: str | Path, names: DistMassColumns, age: Float, error: Float) -> None:
    """Raise InputError for ages or errors that cannot be in the unit that was said."""
    ages, errors = age[np.isfinite(age)], error[np.isfinite(error)]
    wrong = None
    if len(ages) and (names.age_unit == "yr") != (np.median(ages) > _DISTINCT_YEARS):
        wrong = ("age", names.age_unit, names.age, ages)
    elif len(errors) and names.age_error_unit == "dex" and np.median(errors) > _DISTINCT_DEX:
        wrong = ("age_error", "dex", names.e_age, errors)
    if wrong is not None:
        name, unit, column, values = wrong
        raise InputError(
            f"{column} is not in {unit}",
            wanted=f"numbers in {unit}",
            found=f"a median of {np.median(values):.3g}",
            where=path,
            advice=f"name its unit: {name}_unit=yr, Gyr or dex",
        )
