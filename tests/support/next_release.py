"""A made-up Gaia DR4 as files: spectra in DataLink archives, tables of the draft data model.

``python tests/support/next_release.py DIR`` writes it, to try the commands of docs/releases.md.
"""

from __future__ import annotations

import io
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from support.releases import (
    IDS,
    PHOTOMETRY,
    crosswalk,
    denoised,
    design_file,
    observed,
    rotated,
)
from support.xp_files import ARRAYS, csv_bytes, real, votable

from catalogproc.features.astrometry import healpix
from catalogproc.features.input_errors import error_factors
from catalogproc.features.photometry import synthetic_photometry
from catalogproc.release import load_release

FACTS = f"""\
version = 1
name = "dr4"
like = "dr4"
[bands.bp]
basis_function_id = {IDS["bp"]}
[bands.rp]
basis_function_id = {IDS["rp"]}
{PHOTOMETRY}
[columns.xp_continuous_mean_spectrum]
bp_coefficients = "bp_mean_coefficients"
[columns.gaia_source]
phot_bp_mean_mag = "phot_bp_mag"
"""
"""What a user writes on the day; two columns have other names than in DR3."""

NAMES = ("source_id", *ARRAYS, "bp_basis_function_id", "rp_basis_function_id")
SINGLE = 12
"""So many stars are in an archive with one file for each of them."""
FIVE, SIX, TWO = 31 + 128, 95 + 4096, 3 + 1024  # with bits that DR3 does not have
TMASS = ("j", "h", "ks")


@dataclass(frozen=True)
class NextRelease:
    """Files of a made-up DR4 and of the same stars in DR3.

    Attributes
    ----------
    folder
        ``dr3_xp.parquet``, ``dr3_tables``; ``dr4_pairs.parquet`` for the bridge,
        ``dr4_xp_*.zip`` for a run, ``dr4_tables``, ``dr3_neighbourhood.parquet``,
        ``dr4_facts.toml``, ``matrices.npz``.
    stars
        Identifiers in DR4 of the stars to run on (N,).
    before
        Their identifiers in DR3 (N,); 0 of the last ones, which DR3 has not.
    """

    folder: Path
    stars: np.ndarray
    before: np.ndarray


def write_next_release(
    folder: Path, stars: int = 60, fresh: int = 5, pairs: int = 500
) -> NextRelease:
    """Write the files.

    Parameters
    ----------
    folder
        Where they are written; made if necessary.
    stars
        Number of stars to run on: the last of the 1,500 real ones.
    fresh
        So many of these are not in DR3.
    pairs
        Number of stars before them, in both releases: for the bridge.
    """
    for name in ("dr3_tables", "dr4_tables"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    truth = denoised(real(1500).slice(1500 - pairs - stars))
    old, new = observed(truth, seed=1), rotated(truth, noise=0.7, seed=2)
    ids = old["source_id"].to_numpy()
    number = np.arange(len(ids))
    # A third of the identifiers change, as where DR4 resolves a pair of stars.
    new_ids = np.where(number % 3, ids, ids + 11)
    new = new.set_column(0, "source_id", pa.array(new_ids))
    run, known = number >= len(ids) - stars, number < len(ids) - fresh
    pq.write_table(new.filter(pa.array(~run)), folder / "dr4_pairs.parquet")
    pq.write_table(old.filter(pa.array(known)), folder / "dr3_xp.parquet")
    link = crosswalk(ids[known], new_ids[known])
    pq.write_table(link, folder / "dr3_neighbourhood.parquet")
    _write_spectra(folder, new.filter(pa.array(run)))
    _write_tables(folder, truth.filter(pa.array(run)), ids[run], new_ids[run])
    (folder / "dr4_facts.toml").write_text(FACTS)
    # The factors on errors and the pass-bands' file come with GaiaXPy; here the factors are DR3's.
    factors = {name: array for name, array in error_factors(load_release()).items()
               if name.startswith("error_factor_")}  # fmt: skip
    design_file(folder, **factors)
    before = np.where(known, ids, 0)[run]
    return NextRelease(folder, new_ids[run], before)


def _write_spectra(folder: Path, table: pa.Table) -> None:
    """Write archives of DataLink: one table of many stars, and a file for each star."""
    rows = table.select(NAMES).to_pylist()
    # Correlations come as nothing, or as a list; here there are none.
    many, single = rows[:-SINGLE], rows[-SINGLE:]
    called = ["bp_mean_coefficients" if n == "bp_coefficients" else n for n in NAMES]
    renamed = [dict(zip(called, row.values(), strict=True)) for row in many]
    _zip(folder / "dr4_xp_gaia.zip", {
        "MEAN_SPECTRUM_XP-Gaia DR4-DATAMODEL_GAIA.csv": csv_bytes(renamed, called),
        "EPOCH_SPECTRUM_XP-Gaia DR4-DATAMODEL_GAIA.csv": b"source_id\n",
    })  # fmt: skip
    _zip(folder / "dr4_xp_standard.zip", {
        f"MEAN_SPECTRUM_XP-Gaia DR4 {row['source_id']}-DATAMODEL_STANDARD.xml":
            votable([row], "BINARY2", ("source_id", *ARRAYS))
        for row in single
    })  # fmt: skip


def _zip(path: Path, files: dict[str, bytes]) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    path.write_bytes(content.getvalue())


def _write_tables(folder: Path, truth: pa.Table, ids: np.ndarray, new_ids: np.ndarray) -> None:
    """Write gaia_source of DR3, and the tables of the draft data model of DR4."""
    rng, size = np.random.default_rng(4), len(ids)
    bp, rp = (np.array(truth[f"{band}_coefficients"].to_pylist()) for band in ("bp", "rp"))
    light = synthetic_photometry(bp, rp, load_release())
    solved = np.full(size, FIVE)
    solved[::10], solved[1::10] = SIX, TWO
    parallax = np.where(solved == TWO, np.nan, rng.uniform(0.2, 2.0, size))
    ra, dec = rng.uniform(0.0, 360.0, size), rng.uniform(-60.0, 60.0, size)
    error = np.where(solved == TWO, np.nan, 0.02)
    flux_over_error = 1000.0 * 10.0 ** (-0.2 * (light.g - 10.0))
    common = {"ra": ra, "dec": dec, "phot_g_mean_mag": light.g, "parallax_error": error,
              "phot_rp_mean_mag": light.rp, "phot_bp_mean_flux_over_error": flux_over_error,
              "phot_rp_mean_flux_over_error": flux_over_error,
              "nu_eff_used_in_astrometry": np.where(solved == FIVE, 1.45, np.nan),
              "pseudocolour": np.where(solved == SIX, 1.42, np.nan),
              "ruwe": np.full(size, 1.0)}  # fmt: skip
    bits = {FIVE: 31, SIX: 95, TWO: 3}
    blended = {f"phot_{b}_n_blended_transits": np.where(ids == ids[3], 19, 1) for b in ("bp", "rp")}
    transits = {f"phot_{band}_n_obs": np.full(size, 20) for band in ("bp", "rp")}
    multiple = {"non_single_star": (ids == ids[5]).astype(int)}
    _table(folder / "dr3_tables/gaia_source.parquet", {
        "source_id": ids, **common, "phot_bp_mean_mag": light.bp, "parallax": parallax - 0.03,
        "astrometric_params_solved": np.array([bits[int(x)] for x in solved]), **transits,
        **blended, **multiple,
    })  # fmt: skip
    _table(folder / "dr4_tables/gaia_source.parquet", {
        "source_id": new_ids, **common, "phot_bp_mag": light.bp, "parallax": parallax - 0.04,
        "astrometric_params": solved, "healpix29": healpix(ra, dec, 29),
        "tentative_parallax_bias": np.full(size, -0.04),
    })  # fmt: skip
    _table(folder / "dr4_tables/all_source_photometry.parquet",
           {"source_id": new_ids, **transits, **blended})  # fmt: skip
    _table(folder / "dr4_tables/all_source_flags.parquet",
           {"source_id": new_ids, **multiple, "has_xp": np.full(size, True)})  # fmt: skip
    colour = light.bp - light.rp
    near = {"j": light.g - 1.1 * colour, "h": light.g - 1.6 * colour, "ks": light.g - 1.75 * colour}
    _table(folder / "dr4_tables/tmass.parquet", {
        "source_id": new_ids, **{f"{name}_m": near[name] for name in TMASS},
        **{f"{name}_msigcom": np.full(size, 0.02) for name in TMASS},
    })  # fmt: skip
    _table(folder / "dr3_tables/tmass.parquet", {
        "source_id": ids, **{f"{name}_m": near[name] for name in TMASS},
        **{f"{name}_msigcom": np.full(size, 0.02) for name in TMASS},
    })  # fmt: skip


def _table(path: Path, columns: dict[str, np.ndarray]) -> None:
    pq.write_table(pa.table({k: pa.array(v, from_pandas=True) for k, v in columns.items()}), path)


if __name__ == "__main__":
    write_next_release(Path(sys.argv[1]), stars=300, pairs=1200)
