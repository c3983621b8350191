"""Simulated stars as tokens for training, and as tables of the input contract."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalogproc.contract import load_contract
from catalogproc.features import astrometry, canonical, photometry
from catalogproc.features.spectra import TAIL
from catalogproc.io.atomic import AtomicFile
from catalogproc.io.parquet_writer import parquet_writer
from catalogproc.release import Release, load_release
from catalogproc.simulation.other_release import spectra_of
from catalogproc.vocabulary import BANDS, Vocabulary

FILE_STARS = 100_000
"""Number of stars per file."""

LABELS = ("teff", "logg", "m_h", "alpha_m", "mass", "log_age", "rc_prob")
"""True labels; [alpha/Fe] of a corrected simulator alone. ``rc_prob`` is 1 or 0."""

CORE_HELIUM = 3
"""The phase of stars that burn helium in the core, the red clump among them."""

TRUTH = {
    "teff": ("K", "effective temperature"),
    "logg": ("log(cm.s**-2)", "log10 of the surface gravity"),
    "m_h": ("dex", "metallicity [M/H]"),
    "mass": ("solMass", "present mass"),
    "log_age": ("dex", "log10 of the age in years"),
    "log_l": ("dex(solLum)", "log10 of the luminosity"),
    "phase": ("", "1 subgiant, 2 red giant, 3 core helium, 4 early AGB"),
    "rc_prob": ("", "1 for core helium burning (red clump), else 0"),
    "component": ("", "0 thin disk, 1 thick disk, 2 halo, 3 broad"),
    "distance": ("kpc", "distance"),
    "ebv": ("mag", "E(B-V) on the SFD scale"),
    "r_v": ("", "ratio of total to selective extinction"),
    "mg": ("mag", "absolute G magnitude behind its dust"),
    "g_fakemag": ("", "pseudo-luminosity of the true distance, 10^(0.2 mg + 2)"),
}
"""Columns of the truth table after source_id: unit and description."""


@dataclass(frozen=True)
class SimulatedStars:
    """N simulated stars: true parameters and observed quantities.

    Attributes
    ----------
    columns
        Tensors (N,) or (N, n) on one device.
        True: ``m_h, log_age, mass`` [Msun], ``teff`` [K], ``logg, log_l, phase, rc_prob,
        component``, ``distance`` [kpc], ``ebv`` [mag, SFD scale], ``r_v, mg`` [mag]; ``alpha_m``
        of a corrected simulator.
        Observed: ``coefficients, coefficient_errors`` (N, n_bp + n_rp) [electrons/s],
        ``n_bp_relevant, n_rp_relevant``; ``g_mag, bp_mag, rp_mag, j_mag, h_mag, ks_mag`` and
        their errors ``e_*`` [mag]; ``parallax, e_parallax`` [mas, zero-point removed];
        ``ln_ebv_seen, e_ln_ebv``; ``l, b, ra, dec, ecl_lat`` [deg]. NaN is missing.
    n_bp_coefficients
        Number of BP coefficients; the others are of RP.
    seed
        Seed of the simulation.
    release
        The release of the spectra; by default that of the simulated instrument.
    """

    columns: dict[str, Tensor]
    n_bp_coefficients: int
    seed: int
    release: Release = field(default_factory=load_release)

    def __len__(self) -> int:
        return len(self.columns["teff"])

    def __getitem__(self, name: str) -> Tensor:
        return self.columns[name]

    def coefficients(self, band: str, quantity: str = "coefficients") -> Tensor:
        """Return the coefficients of a band or their errors (N, n).

        Parameters
        ----------
        band
            "bp" or "rp".
        quantity
            "coefficients" or "coefficient_errors".
        """
        both = self.columns[quantity]
        n = self.n_bp_coefficients
        return both[:, :n] if band == "bp" else both[:, n:]

    def in_release(self, release: Release) -> SimulatedStars:
        """Return the same stars with spectra of another release (other_release.py).

        Parameters
        ----------
        release
            The release; its design matrices must be known.
        """
        if self.release.same_spectra(release):
            return replace(self, release=release)
        values, errors = (
            {band: self.coefficients(band, quantity) for band in BANDS}
            for quantity in ("coefficients", "coefficient_errors")
        )
        return replace(
            self,
            columns=self.columns | spectra_of(values, errors, release),
            n_bp_coefficients=release.coefficients("bp"),
            release=release,
        )

    def tokens(self, vocabulary: Vocabulary, *, hidden: str = "") -> tuple[Tensor, Tensor]:
        """Return dense values and errors (N, V) in physical units; NaN is an absent token.

        The rules are those of ``features.tokens`` for files: coefficients over the observed G
        flux, none beyond the relevant bases; observed colours; a parallax only where it is
        usable. The LABELS are the true values, with error zero; ``logebv`` and ``g_fakemag`` are
        observed, from a dust map and the parallax, with their errors, as in a run; the training
        loss uses these errors.

        Parameters
        ----------
        vocabulary
            The V tokens.
        hidden
            A band of which nothing is read: canonical coefficients are of the other alone.
        """
        if vocabulary.basis == "archive" and not self.release.same_spectra(vocabulary.data_release):
            return self.in_release(vocabulary.data_release).tokens(vocabulary, hidden=hidden)
        c = self.columns
        shape = (len(self), len(vocabulary))
        values = torch.full(shape, torch.nan, device=c["teff"].device)
        errors = torch.full_like(values, torch.nan)
        zero_point = vocabulary.basis_release.magnitude("G").zero_point
        flux = 10 ** (0.4 * (zero_point - c["g_mag"][:, None]))
        for band, (value, error, relevant) in self._spectra(vocabulary.basis, hidden).items():
            at = torch.from_numpy(vocabulary.coefficient_columns(band)).to(values.device)
            read = slice(0, len(at))
            values[:, at] = (value / flux).masked_fill(~relevant, torch.nan)[:, read]
            errors[:, at] = (error / flux).masked_fill(~relevant, torch.nan)[:, read]
        for name, (value, error) in _tokens(c, vocabulary.data_release).items():
            if name in vocabulary:
                column = vocabulary.column(name)
                values[:, column] = value
                errors[:, column] = error.masked_fill(value.isnan(), torch.nan)
        return values, errors

    def _spectra(self, basis: str, hidden: str = "") -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """Return by band coefficients, errors, and which are relevant (N, n), in a basis."""
        values, errors = (
            {band: self.coefficients(band, quantity) for band in BANDS}
            for quantity in ("coefficients", "coefficient_errors")
        )
        for part in (values, errors):
            part |= {hidden: torch.full_like(part[hidden], torch.nan)} if hidden else {}
        if basis == "archive":
            return {
                band: (
                    values[band],
                    errors[band],
                    _relevance(self[f"n_{band}_relevant"], values[band].shape[1]),
                )
                for band in BANDS
            }
        made = canonical.from_coefficients(
            _as_numpy(values), _as_numpy(errors), release=self.release
        )
        relevant = made.relevant()
        device, dtype = values["bp"].device, values["bp"].dtype
        return {
            band: (
                torch.from_numpy(made.values[band]).to(device, dtype),
                torch.from_numpy(made.errors[band]).to(device, dtype),
                torch.from_numpy(relevant[band]).to(device),
            )
            for band in BANDS
        }


def _as_numpy(by_band: dict[str, Tensor]) -> dict[str, NDArray[np.floating]]:
    return {band: value.cpu().numpy() for band, value in by_band.items()}


def _relevance(number: Tensor, count: int) -> Tensor:
    """Return which coefficients are relevant (N, count); features.spectra.relevance for tensors."""
    if count > TAIL:
        number = torch.where(number >= count - TAIL, count, number)
    return torch.arange(count, device=number.device) < number[:, None]


def _tokens(c: dict[str, Tensor], release: Release) -> dict[str, tuple[Tensor, Tensor]]:
    """Return values and errors (N,) of the tokens that are not coefficients."""
    exact = torch.zeros_like(c["teff"])
    scale = 10 ** (0.2 * c["g_mag"])
    usable = c["e_parallax"] <= astrometry.MAX_PARALLAX_ERROR
    bp, rp = (
        torch.hypot(
            c[f"e_{band}_mag"],
            torch.full_like(exact, release.magnitude(band.upper()).zero_point_error),
        )
        for band in BANDS
    )
    return {
        "bprp": (c["bp_mag"] - c["rp_mag"], torch.hypot(bp, rp)),
        "jh": (c["j_mag"] - c["h_mag"], torch.hypot(c["e_j_mag"], c["e_h_mag"])),
        "jk": (c["j_mag"] - c["ks_mag"], torch.hypot(c["e_j_mag"], c["e_ks_mag"])),
        **{name: (c[name], exact) for name in LABELS if name in c},
        "logebv": (c["ln_ebv_seen"], c["e_ln_ebv"]),
        "g_fakemag": (
            (c["parallax"] * scale).masked_fill(~usable, torch.nan),
            c["e_parallax"] * scale,
        ),
    }


def write_stars(stars: SimulatedStars, folder: Path | str) -> list[Path]:
    """Write stars as files of the input contract, and their true parameters.

    ``xp_continuous_*.parquet``, ``gaia_source_*.parquet`` and ``truth_*.parquet`` hold the same
    stars row by row. Each file is written atomically.

    Parameters
    ----------
    stars
        Simulated stars.
    folder
        Where the files are written; it is created if necessary.

    Returns
    -------
    list of Path
        The files.
    """
    folder = Path(folder)
    columns = {name: value.cpu().numpy() for name, value in stars.columns.items()}
    source_id = source_ids(columns["ra"], columns["dec"], stars.seed)
    tables = {
        "xp_continuous": _spectra_table(stars, columns, source_id),
        "gaia_source": _source_table(stars, columns, source_id),
        "truth": _truth_table(stars, columns, source_id),
    }
    paths = []
    for name, table in tables.items():
        for part, start in enumerate(range(0, max(len(stars), 1), FILE_STARS)):
            path = folder / f"{name}_{part:03d}.parquet"
            _write(table.slice(start, FILE_STARS), path)
            paths.append(path)
    return paths


def source_ids(ra: NDArray[np.float64], dec: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """Return identifiers (N,) built like Gaia's: the HEALPix pixel of order 12 from bit 35 up.

    The lower bits hold 5 bits of the seed and 30 bits of the row, so that they are unique.

    Parameters
    ----------
    ra, dec
        Positions (N,), degrees.
    seed
        Seed of the simulation.
    """
    pixel = astrometry.healpix(ra, dec, order=12)
    return (pixel << 35) | (np.int64(seed % 32) << 30) | np.arange(len(ra), dtype=np.int64)


def _spectra_table(
    stars: SimulatedStars, c: dict[str, NDArray[Any]], source_id: NDArray[np.int64]
) -> pa.Table:
    contract = load_contract("xp_continuous")
    columns: dict[str, Any] = {"source_id": source_id}
    for band in BANDS:
        columns[f"{band}_n_relevant_bases"] = c[f"n_{band}_relevant"].astype(np.int16)
        for what in ("coefficients", "coefficient_errors"):
            name = f"{band}_{what}"
            matrix = stars.coefficients(band, what).cpu().numpy()
            offsets = np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1]
            element = contract[name].arrow_type.value_type
            flat = pa.array(matrix.ravel()).cast(element)
            columns[name] = pa.ListArray.from_arrays(pa.array(offsets), flat)
        number = stars.release.basis_function_id(band)
        if number is not None:
            columns[f"{band}_basis_function_id"] = np.full(len(stars), number)
    schema = pa.schema([contract[name].arrow_field() for name in columns], _metadata(stars))
    return pa.table(columns, schema=schema)


def _source_table(
    stars: SimulatedStars, c: dict[str, NDArray[Any]], source_id: NDArray[np.int64]
) -> pa.Table:
    size = len(source_id)
    random = np.random.default_rng(stars.seed)
    bp_rp = (c["bp_mag"] - c["rp_mag"]).astype(np.float64)
    # The published relation of astrometry's effective wavenumber and colour (Lindegren et al.
    # 2021, eq. 3).
    nu_eff = 1.76 - 1.61 / np.pi * np.arctan(0.531 * bp_rp)
    zero_point = astrometry.zero_point(
        c["g_mag"], nu_eff, np.full(size, np.nan), c["ecl_lat"], np.full(size, 31)
    )
    parallax = c["parallax"] + np.nan_to_num(zero_point)
    solved = np.isfinite(parallax)
    tmass = np.isfinite(c["j_mag"])
    columns: dict[str, Any] = {
        "source_id": source_id,
        **{name: c[name] for name in ("ra", "dec", "l", "b", "ecl_lat")},
        "phot_g_mean_mag": c["g_mag"],
        "phot_bp_mean_mag": c["bp_mag"],
        "phot_rp_mean_mag": c["rp_mag"],
        "phot_bp_mean_flux_over_error": photometry.MAGNITUDE_PER_RELATIVE / c["e_bp_mag"],
        "phot_rp_mean_flux_over_error": photometry.MAGNITUDE_PER_RELATIVE / c["e_rp_mag"],
        "parallax": parallax,
        "parallax_error": c["e_parallax"],
        "nu_eff_used_in_astrometry": np.where(solved, nu_eff, np.nan),
        "astrometric_params_solved": np.where(solved, 31, 3).astype(np.int16),
        "ruwe": np.where(solved, 1 + 0.06 * random.standard_normal(size), np.nan),
        **{f"{band}_m": c[f"{band}_mag"] for band in ("j", "h", "ks")},
        **{f"{band}_msigcom": c[f"e_{band}_mag"] for band in ("j", "h", "ks")},
        "ph_qual": pa.array(np.where(tmass, "AAA", ""), mask=~tmass),
        "ebv": np.exp(c["ln_ebv_seen"]),
        "e_ln_ebv": c["e_ln_ebv"],
    }
    if stars.release.parallax.zero_point == "tentative_parallax_bias":
        columns["tentative_parallax_bias"] = np.where(solved, zero_point, np.nan)
    contract = load_contract("gaia_source")
    arrays = {
        name: (pa.array(value, from_pandas=True) if isinstance(value, np.ndarray) else value).cast(
            contract[name].arrow_type
        )
        for name, value in columns.items()
    }
    schema = pa.schema([contract[name].arrow_field() for name in columns], _metadata(stars))
    return pa.table(arrays, schema=schema)


def _truth_table(
    stars: SimulatedStars, c: dict[str, NDArray[Any]], source_id: NDArray[np.int64]
) -> pa.Table:
    values = c | {"g_fakemag": 10 ** (0.2 * c["mg"] + 2)}
    fields = [pa.field("source_id", pa.int64(), nullable=False)]
    arrays = [pa.array(source_id)]
    for name, (unit, meaning) in TRUTH.items():
        arrays.append(pa.array(values[name]))
        stated = {"unit": unit, "description": meaning}
        fields.append(pa.field(name, arrays[-1].type, nullable=False, metadata=stated))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=_metadata(stars)))


def _metadata(stars: SimulatedStars) -> dict[str, str]:
    return {
        "simulated": "catalogproc.simulation.simulator: not real stars",
        "seed": str(stars.seed),
        **stars.release.facts,
    }


def _write(table: pa.Table, path: Path) -> None:
    with AtomicFile(path) as file:
        with parquet_writer(file, table.schema, split_floats=True) as writer:
            writer.write_table(table, row_group_size=25_000)
