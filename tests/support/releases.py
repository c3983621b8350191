"""A made-up next release: other lengths and basis functions, made from real spectra."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from support.xp_files import ARRAYS, real

from catalogproc.features.canonical import from_coefficients
from catalogproc.features.canonical_tables import columns as places
from catalogproc.features.canonical_tables import operators
from catalogproc.features.flux_calibration import calibration
from catalogproc.release import Release, load_release

IDS = {"bp": 901, "rp": 902}
LENGTHS = {"bp": 51, "rp": 55}
OWN = f"""\
version = 1
name = "own"
like = "dr4"
title = "Gaia of tests"
[bands.bp]
basis_function_id = {IDS["bp"]}
[bands.rp]
basis_function_id = {IDS["rp"]}
"""
PHOTOMETRY = """
[photometry.magnitudes]
G = { zero_point = 25.7, zero_point_error = 0.003 }
BP = { zero_point = 25.3, zero_point_error = 0.003 }
RP = { zero_point = 24.7, zero_point_error = 0.004 }
[extinction]
terms = [[0.9, 0, 0]]
teff = [3500.0, 10000.0]
a_0 = [0.01, 20.0]
"""


def own_file(folder: Path, more: str = "") -> Path:
    """Write a user's release file: what ships for DR4, with basis functions."""
    path = folder / "own.toml"
    path.write_text(OWN + more)
    return path


def own_release(folder: Path, more: str = "") -> Release:
    """Return the release of :func:`own_file`."""
    return load_release(own_file(folder, more))


def cut(table: pa.Table, lengths: dict[str, int]) -> pa.Table:
    """Return spectra with only the first coefficients of each band."""
    columns = {
        name: pa.array([row and row[: lengths[name[:2]]] for row in table.column(name).to_pylist()])
        if name in ARRAYS
        else table.column(name)
        for name in table.column_names
    }
    return pa.table(columns)


def with_ids(table: pa.Table, ids: dict[str, int | None]) -> pa.Table:
    """Return spectra with columns of basis functions."""
    for band, number in ids.items():
        column = pa.array([number] * len(table), pa.int16())
        table = table.append_column(f"{band}_basis_function_id", column)
    return table


def next_spectra(rows: int = 20) -> pa.Table:
    """Return spectra of the made-up release."""
    return with_ids(cut(real(rows), LENGTHS), dict(IDS))


@cache
def rotations() -> dict[str, np.ndarray]:
    """By band R (m, n): coefficients of the made-up release are R times those of DR3.

    Rotated at random, without the directions of which the flux tells nothing.
    """
    rng, found = np.random.default_rng(4), {}
    for band, count in LENGTHS.items():
        weights = calibration(load_release()).weights[band]
        kept = np.linalg.svd(weights, full_matrices=False)[2][:count]
        found[band] = np.linalg.qr(rng.normal(size=(count, count)))[0] @ kept
    return found


def rotated_design() -> dict[str, np.ndarray]:
    """Return the design matrices of the made-up release, as a file of ``release add`` has them."""
    gaia, turn = calibration(load_release()), rotations()
    return {
        "wavelengths": gaia.wavelengths,
        **{f"design_{band}": gaia.design[band] @ turn[band].T for band in LENGTHS},
        **{f"merge_{band}": gaia.merge[band] for band in LENGTHS},
    }


def design_file(folder: Path, **others: np.ndarray) -> Path:
    """Write :func:`rotated_design`, with some arrays replaced."""
    np.savez(folder / "matrices.npz", **(rotated_design() | others))
    return folder / "matrices.npz"


def rotated(
    table: pa.Table, noise: float | None = None, seed: int = 0, correlations: bool = False
) -> pa.Table:
    """Return spectra of DR3 as the made-up release publishes them.

    With ``noise``, errors are that times DR3's, and noise of that size is added.
    """
    rng = np.random.default_rng(seed)
    columns = {"source_id": table["source_id"]}
    triangle = operators()["both"].factor
    for band, turn in rotations().items():
        values, errors = (
            np.array(table[f"{band}_{name}"].to_pylist(), dtype=np.float64)
            for name in ("coefficients", "coefficient_errors")
        )
        own = triangle[places(band), places(band)]
        own = np.linalg.cholesky(own @ own.T)
        factor = turn @ (errors[:, :, None] * own) * (noise or 1.0)
        new = values @ turn.T
        if noise is not None:
            new += np.einsum("nij,nj->ni", factor, rng.normal(size=(len(new), own.shape[1])))
        deviations = np.sqrt(np.square(factor).sum(axis=2))
        columns[f"{band}_coefficients"] = pa.array(list(new), pa.list_(pa.float64()))
        columns[f"{band}_coefficient_errors"] = pa.array(list(deviations), pa.list_(pa.float64()))
        if correlations:
            scaled = factor / deviations[:, :, None]
            row, column = np.tril_indices(len(turn), -1)
            packed = (scaled @ scaled.transpose(0, 2, 1))[:, row, column]
            columns[f"{band}_coefficient_correlations"] = pa.array(list(packed))
        columns[f"{band}_basis_function_id"] = pa.array([IDS[band]] * len(new), pa.int16())
    return pa.table(columns)


def denoised(table: pa.Table) -> pa.Table:
    """Return spectra of DR3 without what is noise in them: a truth for made-up observations."""
    values, errors = (
        {band: np.array(table[f"{band}_{name}"].to_pylist(), np.float64) for band in LENGTHS}
        for name in ("coefficients", "coefficient_errors")
    )
    made = from_coefficients(values, errors)
    relevant = made.relevant()
    columns = {"source_id": table["source_id"]}
    for band in LENGTHS:
        true = np.where(relevant[band], made.values[band], 0.0)
        columns[f"{band}_coefficients"] = pa.array(list(true), pa.list_(pa.float64()))
        columns[f"{band}_coefficient_errors"] = pa.array(list(errors[band]), pa.list_(pa.float64()))
    return pa.table(columns)


def observed(truth: pa.Table, seed: int = 0) -> pa.Table:
    """Return spectra of DR3 with noise of their errors added."""
    rng, triangle = np.random.default_rng(seed), operators()["both"].factor
    table = truth
    for band in LENGTHS:
        values, errors = (
            np.array(truth[f"{band}_{name}"].to_pylist())
            for name in ("coefficients", "coefficient_errors")
        )
        own = triangle[places(band), places(band)]
        noise = rng.normal(size=values.shape) @ np.linalg.cholesky(own @ own.T).T
        place = table.column_names.index(f"{band}_coefficients")
        new = pa.array(list(values + errors * noise), pa.list_(pa.float64()))
        table = table.set_column(place, f"{band}_coefficients", new)
    return table


def crosswalk(ids: np.ndarray, new_ids: np.ndarray) -> pa.Table:
    """Return a table dr3_neighbourhood, with a second, farther source for every tenth star."""
    wrong = ids[::10]
    return pa.table({
        "dr3_source_id": np.concatenate([wrong, ids]),
        "source_id": np.concatenate([np.roll(new_ids[::10], 1), new_ids]),
        "angular_distance": np.concatenate([np.full(len(wrong), 900.0), np.full(len(ids), 30.0)]),
        "magnitude_difference": np.zeros(len(wrong) + len(ids)),
        "probable_match": np.concatenate([np.zeros(len(wrong), bool), np.ones(len(ids), bool)]),
    })  # fmt: skip
