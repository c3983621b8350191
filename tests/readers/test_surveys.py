"""The surveys' files, trap by trap: what is not measured is NaN, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support.survey_files import STARS, Sky, Trap, gnorm, write_fits, write_lb24

from catalogproc.errors import InputError, JobError, ReleaseError
from catalogproc.readers import lb24, surveys

COUNTS = (55, 55)
"""Of Gaia DR3, whose spectra these sets have."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("surveys")


@pytest.fixture(scope="module")
def sky(folder: Path) -> Sky:
    return Sky.make(folder / "simulated")


@pytest.fixture(scope="module")
def allstar(sky: Sky, folder: Path) -> Path:
    write_fits(folder / "allStar-dr17-synspec_rev1.fits", sky.allstar, wide=True)
    return folder / "allStar-dr17-synspec_rev1.fits"


@pytest.fixture(scope="module")
def distmass(sky: Sky, folder: Path) -> Path:
    write_fits(folder / "APOGEE_DistMass-DR17_v1.6.1.fits", sky.distmass)
    return folder / "APOGEE_DistMass-DR17_v1.6.1.fits"


@pytest.fixture(scope="module")
def apogee(allstar: Path) -> pa.Table:
    return pa.Table.from_batches(surveys.read_apogee(allstar, batch_rows=100))


@pytest.fixture(scope="module")
def masses(distmass: Path) -> pa.Table:
    return pa.Table.from_batches(surveys.read_distmass(distmass, batch_rows=100))


def column(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy()


# --- APOGEE -----------------------------------------------------------------------------------


def test_numbers_come_through_as_they_are(apogee: pa.Table, sky: Sky) -> None:
    assert len(apogee) == len(sky.rows)
    traps = list(range(40))
    plain = np.setdiff1d(np.arange(len(apogee)), traps)
    for ours, theirs in (
        ("teff", "TEFF"), ("e_teff", "TEFF_ERR"), ("logg", "LOGG"), ("m_h", "M_H"), ("snr", "SNR"),
    ):  # fmt: skip
        assert (column(apogee, ours)[plain] == sky.allstar[theirs][plain]).all(), ours
    seen = plain[sky.allstar["J"][plain] < 90]
    assert (column(apogee, "j_m")[seen] == sky.allstar["J"][seen]).all()
    assert (column(apogee, "ks_msigcom")[seen] == sky.allstar["K_ERR"][seen]).all()


def test_identifiers_keep_every_digit(apogee: pa.Table, sky: Sky) -> None:
    ids = apogee["source_id"].to_pylist()
    wanted = sky.allstar["GAIAEDR3_SOURCE_ID"].tolist()
    assert ids[Trap.NO_GAIA] is None
    assert ids[1:] == wanted[1:]
    # A float would have lost some: nearly all are beyond what it can hold.
    assert sum(int(float(value)) != value for value in wanted) > STARS / 3


def test_names_are_without_padding(apogee: pa.Table, sky: Sky) -> None:
    names, short = apogee["apogee_id"].to_pylist(), apogee["designation"].to_pylist()
    assert names[Trap.ODD_NAME] == "VESTA"
    assert short[Trap.ODD_NAME] is None
    assert names[Trap.AP_NAME].startswith("AP")
    assert short[Trap.AP_NAME] == names[Trap.AP_NAME][2:]
    assert names[100] == sky.apogee_id[100]
    assert short[100] == sky.apogee_id[100][2:]


def test_what_apogee_did_not_measure_is_nan(apogee: pa.Table) -> None:
    value = {name: column(apogee, name) for name in apogee.column_names if name != "apogee_id"}
    nan = [
        ("j_m", Trap.NO_J), ("j_msigcom", Trap.NO_J), ("ks_m", Trap.NO_K),
        ("ks_msigcom", Trap.NO_K), ("teff", Trap.NO_TEFF), ("e_teff", Trap.NO_TEFF),
        ("teff", Trap.NAN_LABELS), ("m_h", Trap.NAN_LABELS), ("e_teff", Trap.NO_ERROR),
        ("e_logg", Trap.NO_ERROR),
    ]  # fmt: skip
    for name, row in nan:
        assert np.isnan(value[name][row]), name
    known = [
        ("h_m", Trap.NO_K), ("logg", Trap.NO_TEFF), ("teff", Trap.NO_ERROR),
        ("m_h", Trap.METAL_POOR),
    ]  # fmt: skip
    for name, row in known:
        assert np.isfinite(value[name][row]), name
    assert value["m_h"][Trap.METAL_POOR] == np.float32(-2.7)


def test_a_zero_that_is_a_measurement_stays(tmp_path: Path, sky: Sky) -> None:
    table = {name: values.copy() for name, values in sky.allstar.items()}
    table["M_H"][100] = table["LOGG"][101] = 0.0
    write_fits(tmp_path / "allStar.fits", table)
    (batch,) = surveys.read_apogee(tmp_path / "allStar.fits")
    assert batch["m_h"][100].as_py() == 0.0
    assert batch["logg"][101].as_py() == 0.0


def test_flags_come_through_bit_by_bit(apogee: pa.Table) -> None:
    assert column(apogee, "aspcapflag")[Trap.METALS_BAD] == 1 << 19
    assert column(apogee, "aspcapflag")[Trap.STAR_BAD] == 1 << 23
    assert column(apogee, "starflag")[Trap.NEIGHBOUR] == 4
    assert (column(apogee, "extratarg") == 16).sum() == len(apogee) - STARS


def test_pieces_make_the_whole(allstar: Path, apogee: pa.Table) -> None:
    batches = list(surveys.read_apogee(allstar, batch_rows=97))
    assert max(map(len, batches)) == 97
    assert str(pa.Table.from_batches(batches).to_pylist()) == str(apogee.to_pylist())


def test_a_missing_column_is_named(tmp_path: Path, sky: Sky) -> None:
    table = {name: values for name, values in sky.allstar.items() if name != "ASPCAPFLAG"}
    write_fits(tmp_path / "allStar.fits", table)
    with pytest.raises(InputError, match=r"columns are missing(.|\n)*wanted: ASPCAPFLAG"):
        next(surveys.read_apogee(tmp_path / "allStar.fits"))
    lite = {name: values for name, values in sky.allstar.items() if name != "EXTRATARG"}
    write_fits(tmp_path / "lite.fits", lite)
    assert not np.any(next(surveys.read_apogee(tmp_path / "lite.fits"))["extratarg"])


def test_a_source_id_that_is_a_float_is_refused(tmp_path: Path, sky: Sky) -> None:
    ids = sky.allstar["GAIAEDR3_SOURCE_ID"].astype("f8")
    write_fits(tmp_path / "allStar.fits", sky.allstar | {"GAIAEDR3_SOURCE_ID": ids})
    with pytest.raises(InputError, match="source_id is a float"):
        next(surveys.read_apogee(tmp_path / "allStar.fits"))


def test_a_truncated_file_is_refused(tmp_path: Path, allstar: Path) -> None:
    (tmp_path / "allStar.fits").write_bytes(allstar.read_bytes()[:-200_000])
    with pytest.raises(InputError, match="truncated"):
        list(surveys.read_apogee(tmp_path / "allStar.fits"))


# --- DistMass ---------------------------------------------------------------------------------


def test_masses_and_ages(masses: pa.Table, sky: Sky) -> None:
    age = sky.distmass["AGE_UNCOR_SS"]
    known = np.isfinite(age)
    assert 10 ** column(masses, "log_age")[known] == pytest.approx(age[known])
    assert np.isnan(column(masses, "log_age")[~known]).all()
    assert column(masses, "e_log_age")[100] == pytest.approx(0.14)  # of +0.12 and -0.16
    assert column(masses, "mass")[100] == sky.distmass["MASS"][100]
    assert column(masses, "bitmask")[Trap.OUTSIDE] == 2


def test_what_distmass_did_not_find_is_nan(masses: pa.Table, sky: Sky) -> None:
    for name in ("mass", "e_mass"):
        assert np.isnan(column(masses, name)[[Trap.NO_MASS, Trap.SENTINEL_MASS]]).all(), name
    for name in ("log_age", "e_log_age"):
        assert np.isnan(column(masses, name)[Trap.NO_AGE]), name
    assert np.isnan(column(masses, "e_log_age")[Trap.NO_AGE_ERROR])
    dwarfs = np.isnan(sky.distmass["AGE_UNCOR_SS"])
    assert dwarfs.sum() > 20
    assert np.isnan(column(masses, "e_log_age")[dwarfs]).all()  # -9999 twice


def test_other_versions_name_columns_otherwise(tmp_path: Path, sky: Sky) -> None:
    table = dict(sky.distmass)
    table["AGE"] = table.pop("AGE_UNCOR_SS") / 1e9
    table["AGE_ERR"] = np.where(np.isnan(table["AGE"]), -9999.0, 0.3 * table["AGE"])
    table["MASS_2"] = table.pop("MASS")
    write_fits(tmp_path / "other.fits", table)
    with pytest.raises(InputError, match=r"wanted: MASS, AGE_UNCOR_SS(.|\n)*NAME=COLUMN"):
        next(surveys.read_distmass(tmp_path / "other.fits"))
    words = ["mass=MASS_2", "age=AGE", "age_unit=Gyr", "age_error_unit=Gyr"]
    names = surveys.renamed(surveys.DistMassColumns(), words)
    (batch,) = surveys.read_distmass(tmp_path / "other.fits", names)
    age = sky.distmass["AGE_UNCOR_SS"]
    known = np.isfinite(age)
    assert 10 ** np.array(batch["log_age"])[known] == pytest.approx(age[known])
    assert np.array(batch["e_log_age"])[known] == pytest.approx(0.3 / np.log(10))


def test_corrected_ages_are_an_option(distmass: Path, sky: Sky) -> None:
    names = surveys.renamed(surveys.DistMassColumns(), ("age=AGE_COR_SS",))
    (batch,) = surveys.read_distmass(distmass, names)
    assert 10 ** batch["log_age"][100].as_py() == pytest.approx(sky.distmass["AGE_COR_SS"][100])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["age_unit=Gyr"], r"AGE_UNCOR_SS is not in Gyr(.|\n)*age_unit=yr"),
        (["age_unit=dex"], r"AGE_UNCOR_SS is not in dex"),
        (["e_age=AGE_COR_SS"], r"AGE_COR_SS is not in dex(.|\n)*age_error_unit=yr"),
    ],
)
def test_ages_in_another_unit_than_said_are_refused(
    distmass: Path, words: list[str], message: str
) -> None:
    names = surveys.renamed(surveys.DistMassColumns(), words)
    with pytest.raises(InputError, match=message):
        next(surveys.read_distmass(distmass, names))


def test_names_and_units_that_there_are_not() -> None:
    with pytest.raises(JobError, match="no such column to rename"):
        surveys.renamed(surveys.ApogeeColumns(), ["metallicity=M_H"])
    with pytest.raises(JobError, match=r"a unit that ages do not have(.|\n)*found: Myr"):
        surveys.DistMassColumns(age_unit="Myr")


# --- Leung & Bovy 2024 ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(sky: Sky, folder: Path) -> tuple[Path, Path]:
    return write_lb24(folder, sky)


@pytest.fixture(scope="module")
def theirs(published: tuple[Path, Path]) -> pa.Table:
    batches = [b for path in published for b in lb24.read_lb24(path, COUNTS, batch_rows=64)]
    return pa.Table.from_batches(batches)


def star_rows(theirs: pa.Table, sky: Sky) -> np.ndarray:
    """Which simulated star each row is."""
    place = {name[2:]: star for star, name in enumerate(sky.apogee_id)}
    names = theirs["designation"].to_pylist()
    return np.array([place.get(name, Trap.ODD_NAME) for name in names])


def test_all_rows_of_both_files_are_read(theirs: pa.Table, sky: Sky) -> None:
    stars = star_rows(theirs, sky)
    assert sorted(stars) == sorted(sky.rows)
    ids = theirs["source_id"].to_pylist()
    assert [i for i, star in zip(ids, stars, strict=True) if star == Trap.NO_GAIA] == [None]
    for found, star in zip(ids, stars, strict=True):
        if star != Trap.NO_GAIA:
            assert found == int(sky["source_id"][star])


def test_their_coefficients_are_ours(theirs: pa.Table, sky: Sky) -> None:
    values, errors = gnorm(sky)
    stars = star_rows(theirs, sky)
    for band, part in (("bp", slice(0, 55)), ("rp", slice(55, 110))):
        for name, matrix in (
            (f"{band}_coefficients", values),
            (f"{band}_coefficient_errors", errors),
        ):
            lists = theirs[name].to_pylist()
            for row in range(0, len(stars), 17):
                if stars[row] in (Trap.NO_GAIA, Trap.NO_SPECTRUM):
                    continue
                wanted = matrix[stars[row], part].astype("f4")
                assert np.array(lists[row], "f4") == pytest.approx(wanted)
        count = theirs[f"{band}_n_relevant_bases"].to_numpy()
        absent = np.isin(stars, (Trap.NO_GAIA, Trap.NO_SPECTRUM))
        assert (count == np.where(absent, 0, sky[f"n_{band}_relevant"][stars])).all()
        assert theirs[f"{band}_coefficients"].is_null().to_numpy().tolist() == absent.tolist()


def test_their_labels_and_what_is_missing_of_them(theirs: pa.Table, sky: Sky) -> None:
    stars = star_rows(theirs, sky)
    value = {name: theirs[name].to_numpy() for name in ("teff", "e_teff", "jh", "e_jh", "jk")}
    at = {number: int(np.flatnonzero(stars == number)[0]) for number in range(30)}
    for number in (Trap.METALS_BAD, Trap.STAR_BAD, Trap.PERSISTENCE, Trap.NO_TEFF):
        assert np.isnan(value["teff"][at[number]])
        assert np.isnan(value["e_teff"][at[number]])
    assert np.isfinite(value["teff"][at[Trap.WARNED]])
    # Their colours keep the error of a magnitude that they blank, and a K of 0 is no K.
    assert np.isnan(value["jh"][at[Trap.NO_J]])
    assert np.isnan(value["e_jh"][at[Trap.NO_J]])
    assert np.isnan(value["jk"][at[Trap.NO_K]])
    measured = np.isfinite(sky["j_mag"] - sky["ks_mag"])[stars]
    measured &= ~np.isin(stars, (Trap.NO_J, Trap.NO_K))
    assert (np.isfinite(value["jk"]) == measured).all()


def test_their_columns_under_our_names(theirs: pa.Table, sky: Sky) -> None:
    stars = star_rows(theirs, sky)
    assert theirs["logebv"].to_numpy() == pytest.approx(sky["ln_ebv_seen"][stars])
    assert theirs["phot_g_mean_mag"].to_numpy() == pytest.approx(sky["g_mag"][stars])
    parallax = sky["parallax"][stars]
    assert theirs["parallax_zpc"].to_numpy() == pytest.approx(parallax, nan_ok=True)


def test_their_files_in_pieces(published: tuple[Path, Path]) -> None:
    whole = pa.Table.from_batches(lb24.read_lb24(published[1], COUNTS))
    parts = pa.Table.from_batches(lb24.read_lb24(published[1], COUNTS, batch_rows=7))
    assert str(parts.to_pylist()) == str(whole.to_pylist())


def broken(kind: str, path: Path, published: tuple[Path, Path]) -> None:
    import h5py

    path.write_bytes(published[1].read_bytes())
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-5000])
        return
    with h5py.File(path, "r+") as file:
        if kind == "missing":
            del file["raw/logc19_err"]
        elif kind == "short":
            short = file["raw/teff"][:-1]
            del file["raw/teff"]
            file["raw/teff"] = short
        elif kind == "float":
            ids = file["gaia_source_id"][:].astype("f8")
            del file["gaia_source_id"]
            file["gaia_source_id"] = ids


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "cannot be read as HDF5"),
        ("missing", "datasets are missing"),
        ("short", "datasets of different lengths"),
        ("float", "source_id is a float"),
    ],
)
def test_broken_sets_are_refused(
    kind: str, message: str, tmp_path: Path, published: tuple[Path, Path]
) -> None:
    broken(kind, tmp_path / "testing_set.h5", published)
    with pytest.raises(InputError, match=message):
        list(lb24.read_lb24(tmp_path / "testing_set.h5", COUNTS))


def test_another_release_is_refused(published: tuple[Path, Path]) -> None:
    with pytest.raises(ReleaseError, match=r"wanted: 106 coefficients(.|\n)*110"):
        list(lb24.read_lb24(published[1], counts=(51, 55)))
