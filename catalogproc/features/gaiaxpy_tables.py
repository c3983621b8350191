"""Tables of GaiaXPy's configuration: pass-bands, flux calibration, error correction factors.

They ship as grids/gaiaxpy_tables.npz, because importing GaiaXPy takes 1.9 s, switches off every
RuntimeWarning of the process, and makes matplotlib use LaTeX. To write the file again:

    python -m catalogproc.features.gaiaxpy_tables grids/gaiaxpy_tables.npz

Source: GaiaXPy 2.1.5 (BSD-3-Clause, ESA/Gaia/DPAC); Montegriffo et al. 2023, A&A 674, A3;
Gaia Collaboration, Montegriffo et al. 2023, A&A 674, A33.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import CatalogprocError
from catalogproc.resources import shipped
from catalogproc.vocabulary import BANDS

Float = NDArray[np.float64]

FILE = "gaiaxpy_tables.npz"

SYSTEM = "GaiaDr3Vega"
"""GaiaXPy's label of the photometric system of Gaia DR3, Vega zero-points."""

PASSBANDS = ("G", "BP", "RP")
"""Order of the pass-bands in the tables."""

BP_MODEL, RP_MODEL = "v375wi", "v142r"
"""Instrument models of the archive's DR3 spectra, GaiaXPy's default."""


def read_tables(path: Path | None = None) -> dict[str, Float]:
    """Read the shipped tables.

    Parameters
    ----------
    path
        A file that :func:`write_tables` wrote; by default the shipped one.

    Returns
    -------
    dict
        The arrays of :func:`tables_of_gaiaxpy` by name.

    Raises
    ------
    CatalogprocError
        The file does not exist.
    """
    path = path or shipped("grids") / FILE
    if not path.is_file():
        raise CatalogprocError(
            "the tables of GaiaXPy that ship with catalogproc are missing",
            wanted=path,
            advice="install catalogproc again: pip install --force-reinstall catalogproc",
        )
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def tables_of_gaiaxpy() -> dict[str, Float]:
    """Return the tables of the installed GaiaXPy.

    Returns
    -------
    dict
        ``wavelengths`` (343,) in nm, 336 to 1020, and for each band b: ``design_<b>`` (343, 55),
        flux in W m-2 nm-1 from the coefficients of one band in electrons per second;
        ``merge_<b>`` (343,), the weight of the band in the merged spectrum;
        ``passband_<b>`` (3, 55), flux in PASSBANDS in W m-2 nm-1 from the coefficients;
        ``error_factor_<b>`` (bins,), the factor on the published errors.
        ``passband_wavelengths`` (3,), mean wavelengths in nm; ``passband_zero_points`` (3,) in
        mag; ``error_factor_g_mag`` (bins,), bright edges in G of bins of one magnitude.
    """
    import gaiaxpy
    from gaiaxpy.config.paths import correction_tables_path
    from gaiaxpy.core.config import load_xpmerge_from_xml, load_xpsampling_from_xml

    def sampling(system: str | None) -> tuple[Float, dict[str, Float], dict[str, Float]]:
        model = {"system": system, "bp_model": BP_MODEL, "rp_model": RP_MODEL}
        wavelengths, merge = load_xpmerge_from_xml(**model)
        return wavelengths, load_xpsampling_from_xml(**model), merge

    wavelengths, design, merge = sampling(None)
    passband_wavelengths, passband_design, passband_merge = sampling(SYSTEM)
    vega = gaiaxpy.PhotometricSystem.Gaia_DR3_Vega
    order = [vega.get_bands().index(name) for name in PASSBANDS]
    corrections = Path(correction_tables_path) / f"DIDREQ-465-{SYSTEM}-correction-factors.csv"
    with corrections.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
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


def write_tables(path: Path) -> None:
    """Write the tables of the installed GaiaXPy.

    Parameters
    ----------
    path
        The ``.npz`` file; an existing one is overwritten.
    """
    np.savez_compressed(path, allow_pickle=False, **tables_of_gaiaxpy())


if __name__ == "__main__":
    write_tables(Path(sys.argv[1]))
