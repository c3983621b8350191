"""Real Gaia stars for tests: spectra, correlations, photometry, parallaxes."""

from __future__ import annotations

import csv
import json
import warnings
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from support.paths import DATA, EXAMPLES

from catalogproc.release import load_release

DR3 = load_release("dr3")

ARCHIVE = DATA / "archive_formats" / "XP_CONTINUOUS_RAW.csv"
ONE_BAND = DATA / "archive_formats" / "XP_CONTINUOUS_RAW_with_missing_BP.csv"


@cache
def faint() -> pa.Table:
    """1,500 real spectra without photometry or correlations, columns of xp_continuous."""
    files = sorted(EXAMPLES.glob("xp_continuous_*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files]).combine_chunks()


@cache
def bright() -> pa.Table:
    """30 real spectra of G 6 to 8 with correlations, ordered by source_id."""
    table = pq.read_table(DATA / "gaia_xp_correlated" / "xp_continuous_30.parquet")
    for index, field in enumerate(table.schema):
        if field.type == pa.string():
            texts = (text.strip("()") for text in table.column(index).to_pylist())
            lists = [json.loads(f"[{text}]") for text in texts]
            table = table.set_column(index, field.name, pa.array(lists, pa.list_(pa.float64())))
    return table.sort_by("source_id").combine_chunks()


@cache
def bright_auxiliary() -> pa.Table:
    """gaia_source columns of the same 30 stars, in the same order."""
    table = pq.read_table(DATA / "gaia_xp_correlated" / "gaia_source_30.parquet")
    return table.sort_by("source_id").combine_chunks()


@cache
def kepler() -> dict[str, np.ndarray]:
    """322 Kepler red giants: columns by name, NaN where empty."""
    with (DATA / "kepler_red_giants.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}


def stacked(table: pa.Table, name: str) -> np.ndarray:
    """Return a list column without nulls as a matrix, by a simple and slow route."""
    return np.array(table.column(name).to_pylist(), dtype=np.float64)


def gaiaxpy():  # type: ignore[no-untyped-def]
    """Import GaiaXPy without its warnings; the import is slow and changes warning filters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import gaiaxpy

        return gaiaxpy


def gaiaxpy_frame(table: pa.Table):  # type: ignore[no-untyped-def]
    """Return the spectra as the DataFrame that GaiaXPy takes.

    Without correlations it gets diagonal covariances.
    """
    import pandas as pd

    frame = pd.DataFrame({"source_id": table.column("source_id").to_numpy()})
    for band in ("bp", "rp"):
        errors = stacked(table, f"{band}_coefficient_errors")
        names = table.column_names
        scatter = (
            table.column(f"{band}_standard_deviation").to_numpy()
            if f"{band}_standard_deviation" in names
            else np.ones(len(table))
        )
        correlation = np.broadcast_to(np.eye(errors.shape[1]), (len(table), *2 * errors.shape[1:]))
        if f"{band}_coefficient_correlations" in names:
            correlation = correlation.copy()
            packed = stacked(table, f"{band}_coefficient_correlations")
            for star, values in enumerate(packed):
                lower = np.zeros(correlation.shape[1:])
                lower[np.tril_indices(len(lower), -1)] = values
                correlation[star] += lower + lower.T
        formal = errors / scatter[:, None]
        frame[f"{band}_coefficients"] = list(stacked(table, f"{band}_coefficients"))
        frame[f"{band}_coefficient_errors"] = list(errors)
        frame[f"{band}_standard_deviation"] = scatter
        frame[f"{band}_n_parameters"] = errors.shape[1]
        frame[f"{band}_n_relevant_bases"] = table.column(f"{band}_n_relevant_bases").to_numpy()
        frame[f"{band}_coefficient_correlations"] = list(correlation)
        frame[f"{band}_covariance_matrix"] = list(
            formal[:, :, None] * correlation * formal[:, None, :]
        )
    return frame


def gaiaxpy_magnitudes(table: pa.Table) -> dict[str, np.ndarray]:
    """Return G, BP and RP magnitudes and relative flux errors of gaiaxpy.generate.

    Without correlations GaiaXPy gets diagonal covariances.
    """
    package = gaiaxpy()
    frame = gaiaxpy_frame(table)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = package.generate(
            frame, photometric_system=package.PhotometricSystem.Gaia_DR3_Vega, save_file=False
        )
    result = {}
    for name in ("G", "BP", "RP"):
        result[name] = made[f"GaiaDr3Vega_mag_{name}"].to_numpy()
        result[f"e_{name}"] = (
            made[f"GaiaDr3Vega_flux_error_{name}"] / made[f"GaiaDr3Vega_flux_{name}"]
        ).to_numpy()
    return result


@cache
def unfolded_passbands() -> tuple[np.ndarray, np.ndarray]:
    """Return photon-weighted pass-bands (3, L) of G, BP, RP on GaiaXPy's wavelengths in nm (L,).

    The flux in a band is the sum over wavelengths of pass-band times spectrum, and the
    spectrum is linear in the coefficients: non-negative, smooth least squares.
    """
    gaiaxpy()
    from gaiaxpy.core.config import load_xpmerge_from_xml, load_xpsampling_from_xml
    from scipy.optimize import nnls

    from catalogproc.features import photometry

    system = photometry.passbands(DR3)
    wavelength, merge = load_xpmerge_from_xml(bp_model="v375wi")
    design = load_xpsampling_from_xml(bp_model="v375wi")
    matrix = np.vstack([design[name] * merge[name] for name in ("bp", "rp")])
    matrix /= np.abs(matrix).max()
    smooth = 1e-2 * np.diff(np.eye(len(wavelength)), 2, axis=0)
    found = []
    for index in range(len(system.names)):
        weights = np.concatenate([system.weights[name][index] for name in ("bp", "rp")])
        target = np.concatenate([weights / np.abs(weights).max(), np.zeros(len(smooth))])
        found.append(nnls(np.vstack([matrix, smooth]), target, maxiter=20_000)[0])
    return np.array(found), wavelength


def nulled(table: pa.Table, band: str, rows: list[int]) -> pa.Table:
    """Return the table with a band missing in some rows."""
    keep = pa.array([row not in rows for row in range(len(table))])
    for name in table.column_names:
        if name.startswith(f"{band}_"):
            column = table.column(name).combine_chunks()
            table = table.set_column(
                table.column_names.index(name), name, pc.if_else(keep, column, pa.scalar(None))
            )
    return table
