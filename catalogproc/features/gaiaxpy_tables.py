"""Tables of GaiaXPy's configuration: pass-bands, flux calibration, error correction factors.

They ship as grids/gaiaxpy_tables.npz, because importing GaiaXPy takes 1.9 s, switches off every
RuntimeWarning of the process, and makes matplotlib use LaTeX. To write the file again:

    python -m catalogproc.features.gaiaxpy_tables grids/gaiaxpy_tables.npz [RELEASE]

Source: GaiaXPy 2.1.5 (BSD-3-Clause, ESA/Gaia/DPAC); Montegriffo et al. 2023, A&A 674, A3;
Gaia Collaboration, Montegriffo et al. 2023, A&A 674, A33.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import ReleaseError
from catalogproc.io.hashes import file_sha256
from catalogproc.release import Release, load_release
from catalogproc.vocabulary import BANDS

Float = NDArray[np.float64]

PASSBANDS = ("G", "BP", "RP")
"""Order of the pass-bands in the tables."""


@cache
def read_tables(release: Release) -> Mapping[str, Float]:
    """Read the tables of a release.

    Parameters
    ----------
    release
        It names the file, which :func:`write_tables` wrote, and the file's hash.

    Returns
    -------
    dict
        The arrays of :func:`tables_of_gaiaxpy` by name. A user's file may have the matrices of
        the flux alone (gaiaxpy_files.py).

    Raises
    ------
    ReleaseError
        The release names no file, the file is missing or has another hash, or its matrices are
        for other numbers of coefficients.
    """
    path = release.design_file()
    if release.design is not None and (found := file_sha256(path)) != release.design.sha256:
        raise ReleaseError(
            f"the design matrices are not those that {release.title} names",
            wanted=f"sha256 {release.design.sha256}", found=found, where=path,
        )  # fmt: skip
    with np.load(path, allow_pickle=False) as file:
        tables = {name: file[name] for name in file.files}
    for band in BANDS:
        for name in (f"design_{band}", f"passband_{band}"):
            found_columns = tables[name].shape[1] if name in tables else "no such array"
            if name.startswith("passband") and name not in tables:
                continue
            if found_columns != release.coefficients(band):
                raise ReleaseError(
                    f"the design matrices are for other spectra than those of {release.title}",
                    wanted=f"{name} with {release.coefficients(band)} columns",
                    found=found_columns, where=path,
                )  # fmt: skip
    return tables


def tables_for(release: Release, what: str, *names: str, without: str = "") -> Mapping[str, Float]:
    """Read the tables of a release for a purpose.

    Parameters
    ----------
    release
        The release.
    what
        The purpose, for messages: what the arrays are.
    names
        Arrays that are needed.
    without
        What to do where they are not known, for messages.

    Raises
    ------
    ReleaseError
        As :func:`read_tables`; or an array is missing in the file.
    """
    tables = read_tables(release)
    if missing := [name for name in names if name not in tables]:
        raise ReleaseError(
            f"{release.title} is used without knowing {what}",
            wanted=", ".join(missing), found=", ".join(tables), where=release.design_file(),
            advice="write the file again with GaiaXPy's file of them: catalogproc release add "
            "--design FILE..." + without,
        )  # fmt: skip
    return tables


def tables_of_gaiaxpy(release: Release) -> dict[str, Float]:
    """Return the tables of the installed GaiaXPy.

    Parameters
    ----------
    release
        Its instrument models and photometric system, by their names in GaiaXPy.

    Returns
    -------
    dict
        ``wavelengths`` (343,) in nm, 336 to 1020, and for each band b: ``design_<b>`` (343, n),
        flux in W m-2 nm-1 from the coefficients of one band in electrons per second;
        ``merge_<b>`` (343,), the weight of the band in the merged spectrum;
        ``passband_<b>`` (3, n), flux in PASSBANDS in W m-2 nm-1 from the coefficients;
        ``error_factor_<b>`` (bins,), the factor on the published errors.
        ``passband_wavelengths`` (3,), mean wavelengths in nm; ``passband_zero_points`` (3,) in
        mag; ``error_factor_g_mag`` (bins,), bright edges in G of bins of one magnitude.
    """
    import gaiaxpy
    from gaiaxpy.core.config import load_xpmerge_from_xml, load_xpsampling_from_xml

    label = release.photometry.system
    if label is None:
        raise release.unknown("its photometric system", "photometry", 'system = "…"')
    models = {f"{band}_model": release.bands[band].instrument for band in BANDS}

    def sampling(system: str | None) -> tuple[Float, dict[str, Float], dict[str, Float]]:
        model = {"system": system, **models}
        wavelengths, merge = load_xpmerge_from_xml(**model)
        return wavelengths, load_xpsampling_from_xml(**model), merge

    wavelengths, design, merge = sampling(None)
    passband_wavelengths, passband_design, passband_merge = sampling(label)
    vega = next(item for item in gaiaxpy.PhotometricSystem if item.get_system_label() == label)
    order = [vega.get_bands().index(name) for name in PASSBANDS]
    rows = _correction_factors(label)
    tables = {
        "wavelengths": wavelengths,
        "passband_wavelengths": passband_wavelengths[order],
        "passband_zero_points": vega.get_zero_points()[order],
        "error_factor_g_mag": np.array([float(row["min_Gmag_bin"]) for row in rows]),
    }
    for band in BANDS:
        passband = passband_design[band].T * passband_merge[band][:, None]
        factor = np.array([float(row[f"factor_{band.upper()}"]) for row in rows])
        tables |= {
            f"design_{band}": np.ascontiguousarray(design[band].T),
            f"merge_{band}": merge[band],
            f"passband_{band}": np.ascontiguousarray(passband[order]),
            f"error_factor_{band}": factor,
        }
    return tables


def _correction_factors(system: str) -> list[dict[str, str]]:
    """Return the rows of GaiaXPy's table of factors on the published errors, by bin of G."""
    from gaiaxpy.config.paths import correction_tables_path

    path = Path(correction_tables_path) / f"DIDREQ-465-{system}-correction-factors.csv"
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_tables(path: Path, release: Release) -> None:
    """Write the tables of the installed GaiaXPy.

    Parameters
    ----------
    path
        The ``.npz`` file; an existing one is overwritten.
    release
        As for :func:`tables_of_gaiaxpy`.
    """
    np.savez_compressed(path, allow_pickle=False, **tables_of_gaiaxpy(release))


if __name__ == "__main__":
    write_tables(Path(sys.argv[1]), load_release(*sys.argv[2:]))
