"""Files in the layouts of APOGEE DR17, DistMass v1.6.1 and Leung & Bovy's sets.

The stars are simulated; layouts and defects are those of the published files. Each defect is in
a known row, see :class:`Trap`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

STARS, SEED = 480, 11


class Trap:
    """Row numbers of stars with a defect."""

    NO_GAIA = 0  # GAIAEDR3_SOURCE_ID = 0
    METALS_BAD = 1  # ASPCAPFLAG bit 19
    STAR_BAD = 2  # ASPCAPFLAG bit 23
    PERSISTENCE = 3  # STARFLAG bit 9
    NEIGHBOUR = 4  # STARFLAG bit 2: the star itself is contaminated
    NO_J = 5  # J = 99.999, and its error 9.999
    NO_K = 6  # K = 0
    NO_TEFF = 7  # -9999
    NAN_LABELS = 8
    NO_ERROR = 9  # TEFF_ERR = 0, LOGG_ERR = -9999
    ODD_NAME = 10  # APOGEE_ID without coordinates
    AP_NAME = 11  # AP instead of 2M
    NO_MASS = 12  # -9999
    NO_AGE = 13  # NaN
    TOO_OLD = 14  # 15 Gyr
    METAL_POOR = 15  # [M/H] = -2.7
    NO_AGE_ERROR = 16  # (0, 0)
    NO_SPECTRUM = 17  # no XP spectrum in the archive
    BP_ONLY = 18
    BAD_RUWE = 19
    WARNED = 20  # ASPCAPFLAG bit 7: only a warning
    OUTSIDE = 21  # DistMass BITMASK 2
    FAINT = 22  # G = 17.6
    NO_PARALLAX = 23
    SENTINEL_MASS = 24  # 0


TWICE = tuple(range(40, 70))
"""Stars with two spectra in APOGEE: two rows of one APOGEE_ID and source_id, other labels."""

THREE_TIMES = (70, 71)


@dataclass(frozen=True)
class Sky:
    """Simulated stars as arrays (N,) by name, and the columns of survey files made of them."""

    columns: dict[str, Array]
    spectra: Any  # the simulated spectra, tables of the input contract
    source: Any

    @classmethod
    def make(cls, folder: Path, stars: int = STARS, seed: int = SEED) -> Sky:
        import pyarrow.parquet as pq
        import torch

        from catalogproc.simulation.simulator import Simulator, write_stars

        torch.set_num_threads(1)
        simulated = Simulator().draw(stars, seed)
        # Rows with a defect have only that one: they are giants with all quantities measured.
        c = simulated.columns
        plain = (c["logg"] < 3.3) & (c["m_h"].abs() < 0.45) & (c["e_parallax"] < 0.08)
        plain &= c["j_mag"].isfinite() & (c["g_mag"] < 17.2)
        order = torch.argsort(plain.int(), descending=True, stable=True)
        assert plain.sum() > THREE_TIMES[-1]
        columns = {name: value[order] for name, value in simulated.columns.items()}
        simulated = replace(simulated, columns=columns)
        paths = write_stars(simulated, folder)
        tables = {path.name.split("_0")[0]: pq.read_table(path) for path in paths}
        columns = {name: np.array(value.numpy()) for name, value in simulated.columns.items()}
        columns["source_id"] = tables["truth"]["source_id"].to_numpy()
        return cls(columns, tables["xp_continuous"], tables["gaia_source"])

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]

    def __len__(self) -> int:
        return len(self.columns["teff"])

    @cached_property
    def apogee_id(self) -> Array:
        """APOGEE_ID, 18 characters: 2M and sexagesimal coordinates."""
        hours, degrees = self["ra"] / 15.0, self["dec"]
        names = []
        for h, d in zip(hours, degrees, strict=True):
            seconds, arc = round(h * 360_000), round(abs(d) * 36_000)
            names.append(
                f"2M{seconds // 360_000:02d}{seconds // 6000 % 60:02d}{seconds % 6000:04d}"
                f"{'-' if d < 0 else '+'}{arc // 36_000:02d}{arc // 600 % 60:02d}{arc % 600:03d}"
            )
        names[Trap.ODD_NAME] = "VESTA"
        names[Trap.AP_NAME] = "AP" + names[Trap.AP_NAME][2:]
        assert len({*names}) == len(names)
        return np.array(names)

    @cached_property
    def rows(self) -> Array:
        """Star number of each row of the surveys. Further spectra of a star come last, as those of
        APOGEE's other telescope."""
        further = [*TWICE, *THREE_TIMES, *THREE_TIMES]
        return np.array([*range(len(self)), *further])

    @cached_property
    def labels(self) -> dict[str, Array]:
        """Labels measured by APOGEE in each row: the truth plus noise, different per spectrum."""
        random, rows = np.random.default_rng(5), self.rows
        labels = {}
        for name, error in (("teff", 30.0), ("logg", 0.05), ("m_h", 0.02)):
            size = error * random.uniform(0.8, 1.2, len(rows))
            labels[name] = (self[name][rows] + size * random.standard_normal(len(rows))).astype(
                "f4"
            )
            labels[f"e_{name}"] = size.astype("f4")
        return labels

    @cached_property
    def allstar(self) -> dict[str, Array]:
        """Columns (R,) of allStar, with the defects."""
        rows, labels = self.rows, self.labels
        count = len(rows)
        first = np.arange(count) < len(self)
        table = {
            "APOGEE_ID": self.apogee_id[rows].astype("S18"),
            "GAIAEDR3_SOURCE_ID": self["source_id"][rows].astype(np.int64),
            "TEFF": labels["teff"].copy(),
            "TEFF_ERR": labels["e_teff"].copy(),
            "LOGG": labels["logg"].copy(),
            "LOGG_ERR": labels["e_logg"].copy(),
            "M_H": labels["m_h"].copy(),
            "M_H_ERR": labels["e_m_h"].copy(),
            "J": _magnitudes(self["j_mag"][rows]),
            "J_ERR": _magnitudes(self["e_j_mag"][rows]),
            "H": _magnitudes(self["h_mag"][rows]),
            "H_ERR": _magnitudes(self["e_h_mag"][rows]),
            "K": _magnitudes(self["ks_mag"][rows]),
            "K_ERR": _magnitudes(self["e_ks_mag"][rows]),
            "ASPCAPFLAG": np.zeros(count, np.int64),
            "STARFLAG": np.zeros(count, np.int64),
            "EXTRATARG": np.where(first, 0, 16).astype(np.int32),
            "SNR": np.where(first, 150.0, 60.0).astype("f4"),
        }
        # The second of two spectra may be the primary one.
        table["EXTRATARG"][[40, len(self)]] = 16, 0
        trap = table.__getitem__
        trap("GAIAEDR3_SOURCE_ID")[Trap.NO_GAIA] = 0
        trap("ASPCAPFLAG")[[Trap.METALS_BAD, Trap.STAR_BAD, Trap.WARNED]] = 1 << 19, 1 << 23, 1 << 7
        trap("STARFLAG")[[Trap.PERSISTENCE, Trap.NEIGHBOUR]] = 1 << 9, 1 << 2
        trap("J")[Trap.NO_J], trap("J_ERR")[Trap.NO_J] = 99.999, 9.999
        trap("K")[Trap.NO_K] = 0.0
        trap("TEFF")[Trap.NO_TEFF], trap("TEFF_ERR")[Trap.NO_TEFF] = -9999.0, -9999.0
        for name in ("TEFF", "LOGG", "M_H"):
            trap(name)[Trap.NAN_LABELS] = trap(f"{name}_ERR")[Trap.NAN_LABELS] = np.nan
        trap("TEFF_ERR")[Trap.NO_ERROR], trap("LOGG_ERR")[Trap.NO_ERROR] = 0.0, -9999.0
        trap("M_H")[Trap.METAL_POOR] = -2.7
        return table

    @cached_property
    def distmass(self) -> dict[str, Array]:
        """Columns (R,) or (R, 2) of DistMass v1.6.1, in the row order of allStar."""
        rows, labels, random = self.rows, self.labels, np.random.default_rng(6)
        count = len(rows)
        mass = self["mass"][rows] * (1 + 0.05 * random.standard_normal(count))
        log_age = self["log_age"][rows] + 0.1 * random.standard_normal(count)
        giant = self["logg"][rows] < 3.5
        age = np.where(giant, 10 ** np.clip(log_age, 8, np.log10(13.7e9)), np.nan)
        e_age = np.where(giant[:, None], [0.12, -0.16], [-9999.0, -9999.0])
        table = {
            "APOGEE_ID": self.apogee_id[rows].astype("S18"),
            "TEFF": labels["teff"].astype("f8"),
            "LOGG": labels["logg"].astype("f8"),
            "M_H": labels["m_h"].astype("f8"),
            "MASS": mass,
            "MASS_ERR": (0.1872 - 0.0348 * labels["logg"]) * mass,
            "WEIGHTED_DIST": self["distance"][rows] * 1000.0,
            "AGE_UNCOR_SS": age,
            "AGE_COR_SS": age * 1.1,
            "AGE_ERR": e_age,
            "BITMASK": np.zeros(count, np.int64),
        }
        table["MASS"][Trap.NO_MASS], table["MASS"][Trap.SENTINEL_MASS] = -9999.0, 0.0
        table["AGE_UNCOR_SS"][Trap.NO_AGE] = np.nan
        table["AGE_UNCOR_SS"][Trap.TOO_OLD] = 15e9
        table["AGE_ERR"][Trap.NO_AGE_ERROR] = 0.0
        table["BITMASK"][[Trap.OUTSIDE, Trap.WARNED]] = 2, 1
        return table


def _magnitudes(values: Array) -> Array:
    """Return magnitudes, 99.999 where 2MASS has none, as in allStar."""
    return np.where(np.isnan(values), 99.999, values).astype("f4")


def write_fits(path: Path, table: dict[str, Array], *, wide: bool = False) -> None:
    """Write a FITS file with the table in its first extension.

    Parameters
    ----------
    path
        The file.
    table
        Columns by name.
    wide
        Add array columns and a further table, as allStar has.
    """
    from astropy.io import fits

    codes = {"S18": "18A", "f4": "E", "f8": "D", "i8": "K", "i4": "J"}
    count = len(table["APOGEE_ID"])
    columns = []
    for name, values in table.items():
        kind = f"S{values.dtype.itemsize}" if values.dtype.kind == "S" else values.dtype.str[1:]
        code = codes[kind] if values.ndim == 1 else f"{values.shape[1]}{codes[kind]}"
        columns.append(fits.Column(name, code, array=values))
    if wide:
        random = np.random.default_rng(0)
        columns.insert(
            0, fits.Column("APSTAR_ID", "45A", array=[f"apogee.{i}" for i in range(count)])
        )
        columns.insert(
            3, fits.Column("FPARAM_COV", "81E", dim="(9,9)", array=random.random((count, 9, 9)))
        )
        columns.append(fits.Column("PARAM", "9E", array=random.random((count, 9))))
        columns.append(fits.Column("STARFLAGS", "132A", array=["PERSIST_HIGH"] * count))
    units = [fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="DATA")]
    if wide:
        units.append(fits.BinTableHDU.from_columns([fits.Column("LIB", "20A", array=["a", "b"])]))
    fits.HDUList(units).writeto(path, overwrite=True)


def gnorm(sky: Sky) -> tuple[Array, Array]:
    """Return coefficients over the G flux, and their errors (N, 110), both bands.

    Parameters
    ----------
    sky
        The stars.
    """
    flux = 10 ** (0.4 * (25.6873668671 - sky["g_mag"].astype("f8")))[:, None]
    return sky["coefficients"] / flux, sky["coefficient_errors"] / flux


def write_lb24(folder: Path, sky: Sky) -> tuple[Path, Path]:
    """Write training_set.h5 and testing_set.h5, split by rows as the published ones are: spectra
    of one star may be in both.

    Parameters
    ----------
    folder
        Where the files are written.
    sky
        The stars.
    """
    import h5py

    table, rows = sky.allstar, sky.rows
    values, errors = gnorm(sky)
    values, errors = values[rows], errors[rows]
    nbp, nrp = (sky[f"n_{band}_relevant"][rows] for band in ("bp", "rp"))
    index = np.arange(55)
    relevant = np.concatenate([index < nbp[:, None], index < nrp[:, None]], axis=1)
    none = rows == Trap.NO_SPECTRUM
    none |= rows == Trap.NO_GAIA
    values[none], errors[none], relevant[none] = np.nan, np.nan, False
    bad = (table["ASPCAPFLAG"] & (1 << 19 | 1 << 23) != 0) | (table["STARFLAG"] != 0)
    raw = {"xp_coeffs_gnorm": values, "xp_coeffs_gnorm_err": errors, "xp_relevancy": relevant}
    for name in ("teff", "logg", "m_h"):
        for ours, theirs in ((name, name.upper()), (f"{name}_err", f"{name.upper()}_ERR")):
            raw[ours] = np.where(bad, np.nan, table[theirs]).astype(">f4")
    mags = {k: np.where(table[k] == np.float32(99.999), np.nan, table[k]) for k in "JHK"}
    for name, one, other in (("jh", "J", "H"), ("jk", "J", "K")):
        raw[name] = (mags[one] - mags[other]).astype("f4")
        raw[f"{name}_err"] = np.hypot(table[f"{one}_ERR"], table[f"{other}_ERR"])
    scale = 10 ** (0.2 * sky["g_mag"][rows].astype("f8"))
    parallax = sky["parallax"][rows].astype("f8")
    raw |= {
        "bprp": (sky["bp_mag"] - sky["rp_mag"])[rows],
        "bprp_err": np.hypot(sky["e_bp_mag"], sky["e_rp_mag"])[rows],
        "logc19": sky["ln_ebv_seen"][rows],
        "logc19_err": sky["e_ln_ebv"][rows],
        "parallax": parallax,
        "parallax_err": sky["e_parallax"][rows],
        "g_fakemag": parallax * scale,
        "g_fakemag_err": sky["e_parallax"][rows] * scale,
        "phot_g_mean_mag": sky["g_mag"][rows].astype(">f4"),
    }
    names = np.array([_designation(name.decode()) for name in table["APOGEE_ID"]], "S16")
    test = np.random.default_rng(8).random(len(rows)) < 0.1
    paths = folder / "training_set.h5", folder / "testing_set.h5"
    for path, part in zip(paths, (~test, test), strict=True):
        with h5py.File(path, "w") as file:
            shape = (int(part.sum()), 1)
            file.create_dataset("2mass_designation", shape, "S16", data=names[part][:, None])
            ids = table["GAIAEDR3_SOURCE_ID"][part].astype(">i8")
            file.create_dataset("gaia_source_id", data=ids)
            group = file.create_group("raw")
            for name, column in raw.items():
                group.create_dataset(name, data=column[part])
    return paths


def _designation(name: str) -> str:
    return {18: name[2:], 17: name[1:], 16: name}.get(len(name), "0")
