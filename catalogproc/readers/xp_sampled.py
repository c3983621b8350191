"""XP sampled spectra: flux over wavelength, and at which wavelengths.

The archive's XP_SAMPLED and GaiaXPy's ``calibrate`` have flux at 343 wavelengths, 336 to 1020 nm in
steps of 2 nm. Other wavelengths are read where they hold this range at 2 nm or finer.

Wavelengths stand in a column ``wavelength``, one list per star, or in the file
``NAME_sampling.csv`` that GaiaXPy writes beside ``NAME.csv``; without either the 343 are assumed.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.errors import InputError
from catalogproc.io.remote_file import File

Float = NDArray[np.float64]

GRID: Float = np.arange(336.0, 1021.0, 2.0)
"""Wavelengths of the archive's sampled spectra, nm."""

STEP = 2.0
"""Largest distance of two wavelengths, nm."""

LIMITS = (330.0, 1050.0)
"""Wavelengths beyond are not used: GaiaXPy calibrates none there."""

Spectrum = tuple[Float | None, Float | None, Float | None]
"""Wavelengths (None on GRID), flux and errors of a star; flux and errors None where absent."""

_ABSENT: Spectrum = (None, None, None)

_SAME = 1e-6  # nm

_NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?")


def sampling_file(path: Path) -> Path:
    """Return the file in which GaiaXPy writes the wavelengths of a file of sampled spectra."""
    return path.with_name(f"{path.name.split('.')[0]}_sampling.csv")


def is_sampling_file(path: Path) -> bool:
    """Return whether a file holds the wavelengths of another one that is there."""
    stem = path.name.removesuffix("_sampling.csv")
    return stem != path.name and any(path.parent.glob(f"{_escaped(stem)}.*"))


def wavelengths_beside(path: File) -> Float | None:
    """Return the wavelengths (L,) in nm of the file beside a file of spectra; None without one.

    Parameters
    ----------
    path
        The file of spectra.

    Raises
    ------
    InputError
        The file of wavelengths cannot be read.
    """
    beside: File | None
    if isinstance(path, Path):
        beside = sampling_file(path) if sampling_file(path).is_file() else None
    else:
        beside = path.beside(sampling_file(Path(path.name)).name)
    if beside is None:
        return None
    try:
        with beside.open("rb") as file:
            found = _NUMBER.findall(file.read().decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("the wavelengths cannot be read", found=error, where=beside) from None
    return np.array([float(number) for number in found])


def checked(
    flux: pa.Array, errors: pa.Array, wavelengths: pa.Array | Float | None
) -> tuple[pa.Array, pa.Array, pa.Array, dict[int, str]]:
    """Return sampled spectra that can be read: on GRID, or at wavelengths that hold its range.

    Parameters
    ----------
    flux, errors
        Lists of numbers (N,); null where missing.
    wavelengths
        Lists (N,), nm; or one array (L,) for all; None: the flux is on GRID.

    Returns
    -------
    wavelengths, flux, errors
        Lists (N,), null where missing or wrong; wavelengths ascend, and are null on GRID.
    faults
        By row: why its spectrum cannot be read.
    """
    faults: dict[int, str] = {}
    unknown = wavelengths is None
    if isinstance(wavelengths, pa.Array):
        unknown = wavelengths.null_count == len(wavelengths)
    if unknown and _all_on_grid(flux, errors):
        return pa.nulls(len(flux), pa.list_(pa.float64())), flux, errors, faults
    kept: list[list[Float | None]] = [[], [], []]
    plans: dict[bytes, NDArray[np.int64] | str] = {}
    for row in range(len(flux)):
        values = [_numbers(column[row]) for column in (flux, errors)]
        spectrum = _on_wavelengths(values[0], values[1], _own(wavelengths, row, values[0]), plans)
        if isinstance(spectrum, str):
            faults[row], spectrum = spectrum, _ABSENT
        for held, array in zip(kept, spectrum, strict=True):
            held.append(array)
    lists = [pa.array(held, pa.list_(pa.float64())) for held in kept]
    return lists[0], lists[1], lists[2], faults


def _on_wavelengths(
    flux: Float | None,
    errors: Float | None,
    own: Float | None,
    plans: dict[bytes, NDArray[np.int64] | str],
) -> Spectrum | str:
    """Return one spectrum in the order of its wavelengths, or why it cannot be read.

    ``plans`` holds the order of wavelengths that occurred, so that equal ones are sorted once.
    """
    if flux is None:
        return _ABSENT
    if errors is None or len(errors) != len(flux):
        return "flux and flux_error differ in length"
    if own is None:
        return (
            f"flux: wanted {len(GRID)} values from 336 to 1020 nm, or a column "
            f"wavelength with theirs; found {len(flux)} values"
        )
    if len(own) != len(flux):
        return f"flux: wanted {len(own)} values, one for each wavelength, found {len(flux)}"
    key = own.tobytes()
    if key not in plans:
        plans[key] = _plan(own)
    plan = plans[key]
    if isinstance(plan, str):
        return plan
    on_grid = len(plan) == len(GRID) and np.abs(own[plan] - GRID).max() < _SAME
    return None if on_grid else own[plan], flux[plan], errors[plan]


def _all_on_grid(flux: pa.Array, errors: pa.Array) -> bool:
    """Return whether each spectrum is null or has as many values as GRID."""
    sizes = [pc.fill_null(pc.list_value_length(column), 0) for column in (flux, errors)]
    flux_size, error_size = (np.asarray(size) for size in sizes)
    return bool((np.isin(flux_size, (0, len(GRID))) & (error_size == flux_size)).all())


def _plan(wavelength: Float) -> NDArray[np.int64] | str:
    """Return the indices of the wavelengths to use, in order, or why there are none."""
    order = np.argsort(wavelength, kind="stable")
    ordered = wavelength[order]
    if not np.isfinite(ordered).all() or (np.diff(ordered) <= 0).any():
        return "wavelength: a value is missing, or there twice"
    if ordered[0] > GRID[0] + _SAME or ordered[-1] < GRID[-1] - _SAME:
        return (
            f"wavelength: wanted {GRID[0]:g} to {GRID[-1]:g} nm, "
            f"found {ordered[0]:g} to {ordered[-1]:g} nm"
        )
    place = np.clip(np.searchsorted(ordered, GRID - _SAME), 0, len(ordered) - 1)
    if np.abs(ordered[place] - GRID).max() < _SAME:
        return order[place]
    inside = (ordered > GRID[0] - STEP) & (ordered < GRID[-1] + STEP)
    step = np.diff(ordered[inside]).max()
    if step > STEP + _SAME:
        return f"wavelength: wanted steps of 2 nm or finer, found {step:g} nm"
    return order[(ordered >= LIMITS[0]) & (ordered <= LIMITS[1])]


def _numbers(item: pa.Scalar) -> Float | None:
    return None if item.values is None else np.asarray(item.values, dtype=np.float64)


def _own(wavelengths: pa.Array | Float | None, row: int, flux: Float | None) -> Float | None:
    """Return the wavelengths of one row; None where they are not known."""
    if isinstance(wavelengths, pa.Array) and wavelengths[row].is_valid:
        return _numbers(wavelengths[row])
    if wavelengths is not None and not isinstance(wavelengths, pa.Array):
        return wavelengths
    return GRID if flux is not None and len(flux) == len(GRID) else None


def _escaped(stem: str) -> str:
    return re.sub(r"([\[\]*?])", r"[\1]", stem)
