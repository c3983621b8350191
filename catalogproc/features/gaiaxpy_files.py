"""The files of GaiaXPy's configuration, read without GaiaXPy.

A version of GaiaXPy for another Gaia release has files of the same kinds:

XpFilter_<models>.xml            design matrices and merging weights of the default sampling
XpFilter_<system>_<models>.xml   the same of the pass-bands of a photometric system, zero-points
<...>-correction-factors.csv     factors on the published errors, by bins of G

They become the arrays of :func:`catalogproc.features.gaiaxpy_tables.tables_of_gaiaxpy`. A ``.npz``
file may have some of these arrays by their names.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import ReleaseError
from catalogproc.features.gaiaxpy_tables import PASSBANDS
from catalogproc.vocabulary import BANDS

Float = NDArray[np.float64]

NEEDED = ("wavelengths", *(f"{what}_{band}" for band in BANDS for what in ("design", "merge")))
"""Arrays without which coefficients cannot be turned into flux."""
OTHERS = (
    *(f"passband_{name}" for name in ("wavelengths", "zero_points", *BANDS)),
    *(f"error_factor_{name}" for name in ("g_mag", *BANDS)),
)
"""Arrays of pass-bands and of factors on errors."""
KINDS = (
    "GaiaXPy's XpFilter_<models>.xml | XpFilter_<system>_<models>.xml | "
    "…-correction-factors.csv | an .npz file of arrays"
)


def read_files(paths: Iterable[Path]) -> dict[str, Float]:
    """Read files of GaiaXPy's configuration.

    Parameters
    ----------
    paths
        The files, in any order.

    Returns
    -------
    dict
        Arrays by name: those in NEEDED, and of OTHERS what the files have.

    Raises
    ------
    ReleaseError
        A file cannot be read or is of none of these kinds; two files have the same array; one of
        NEEDED is missing; an array has another shape than it must have beside the others.
    """
    arrays: dict[str, Float] = {}
    origin: dict[str, Path] = {}
    for path in paths:
        for name, values in _read(path).items():
            if name in origin:
                raise ReleaseError(
                    "two files have the same table", wanted=f"{name} once",
                    found=f"{origin[name]} and {path}", advice="leave one of them out",
                )  # fmt: skip
            arrays[name], origin[name] = values, path
    if missing := [name for name in NEEDED if name not in arrays]:
        raise ReleaseError(
            "the files have no design matrices of flux",
            wanted="XpFilter_<models>.xml of GaiaXPy's folder config/filters, which names no "
            "photometric system", found=f"no {', '.join(missing)}",
        )  # fmt: skip
    _check_shapes(arrays)
    return arrays


def _read(path: Path) -> Mapping[str, Float]:
    """Return the arrays of one file."""
    readers = {".xml": _filter, ".csv": _factors, ".npz": _arrays}
    reader = readers.get(path.suffix.lower())
    try:
        found = reader(path) if reader is not None else {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
            ElementTree.ParseError, csv.Error, zipfile.BadZipFile, EOFError) as error:  # fmt: skip
        raise ReleaseError(
            "a file of design matrices cannot be read", wanted=KINDS,
            found=f"{type(error).__name__}: {error}", where=path,
        ) from None  # fmt: skip
    if not found:
        raise ReleaseError("no file of design matrices", wanted=KINDS, found=path.name, where=path)
    return found


def _filter(path: Path) -> dict[str, Float]:
    """Return the arrays of an XpFilter file, of the default sampling or of pass-bands."""
    root = ElementTree.parse(path).getroot()
    at, merge = _numbers(root, "XpMerge/sampleMeanWavelengths"), {}
    design = {}
    for band in BANDS:
        table = f"XpSampling/{band}SampledBases"
        element = root.find(table)
        if element is None:
            raise LookupError(f"no {table}")
        merge[band] = _numbers(root, f"XpMerge/{band}Weights")
        # One row of basis functions after the other, at one wavelength or in one pass-band.
        design[band] = _numbers(root, table).reshape(len(at), int(element.attrib["dimension"]))
    names = root.find("bands")
    if names is None:
        tables = {f"design_{band}": design[band] for band in BANDS}
        return {"wavelengths": at, **tables, **{f"merge_{band}": merge[band] for band in BANDS}}
    order = [[item.text for item in names].index(name) for name in PASSBANDS]
    found = {
        "passband_wavelengths": at[order],
        "passband_zero_points": _numbers(root, "zeropoints")[order],
    }
    for band in BANDS:
        found[f"passband_{band}"] = (design[band] * merge[band][:, None])[order]
    return found


def _numbers(root: ElementTree.Element, path: str) -> Float:
    element = root.find(path)
    if element is None:
        raise LookupError(f"no {path}")
    return np.array([float(item.text or "nan") for item in element])


def _factors(path: Path) -> dict[str, Float]:
    """Return the arrays of a table of factors on errors."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = {"g_mag": "min_Gmag_bin", "bp": "factor_BP", "rp": "factor_RP"}
    return {
        f"error_factor_{name}": np.array([float(row[column]) for row in rows])
        for name, column in names.items()
    }


def _arrays(path: Path) -> dict[str, Float]:
    with np.load(path, allow_pickle=False) as file:
        return {
            name: np.asarray(file[name], dtype=np.float64)
            for name in file.files
            if name in (*NEEDED, *OTHERS)
        }


def _check_shapes(arrays: Mapping[str, Float]) -> None:
    """Raise ReleaseError unless the arrays fit each other and are finite."""
    size = len(arrays["wavelengths"])
    wanted: dict[str, tuple[int, ...]] = {"wavelengths": (size,)}
    for band in BANDS:
        count = arrays[f"design_{band}"].shape[-1]
        wanted |= {f"design_{band}": (size, count), f"merge_{band}": (size,)}
        wanted |= {f"passband_{band}": (len(PASSBANDS), count)}
        wanted |= {f"error_factor_{band}": arrays.get("error_factor_g_mag", np.empty(0)).shape}
    for name, shape in wanted.items():
        if name in arrays and arrays[name].shape != shape:
            raise ReleaseError(
                "the files of design matrices do not fit each other",
                wanted=f"{name} of shape {shape}", found=arrays[name].shape,
                advice="give files of the same models of BP and RP",
            )  # fmt: skip
    if unknown := [name for name, values in arrays.items() if not np.isfinite(values).all()]:
        raise ReleaseError(
            "the files of design matrices have numbers that are not finite",
            found=", ".join(unknown),
        )
