"""Tokens with errors from any table: names, units, masks, errors, spectra."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from astropy import units
from astropy.table import MaskedColumn, QTable, Table
from astropy.utils.masked import Masked
from support import real_stars

from catalogproc.contract import load_contract
from catalogproc.errors import ContractError, JobError
from catalogproc.features.input_errors import input_noise
from catalogproc.features.table_inputs import TableInputs
from catalogproc.features.tokens import tokens
from catalogproc.job import Job
from catalogproc.readers.units import conversion
from catalogproc.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary()
JOB = Job("test")
NAN = float("nan")


def read(table: Any, job: Job | None = None, **more: Any) -> TableInputs:
    return TableInputs.of(table, VOCABULARY, job, **more)


def values(inputs: TableInputs, token: str) -> list[float]:
    return inputs.given[token][0].tolist()


def errors(inputs: TableInputs, token: str) -> list[float]:
    return inputs.given[token][1].tolist()


def test_names_in_any_case() -> None:
    found = read(pa.table({"TEFF": [4800.0], "LogG": [2.5], "E_TEFF": [50.0], "vsini": [3.0]}))
    assert values(found, "teff") == [4800.0]
    assert errors(found, "teff") == [50.0]
    assert np.isnan(errors(found, "logg"))
    assert found.used == ("TEFF", "LogG", "E_TEFF")
    assert found.ignored == ("vsini",)


@pytest.mark.parametrize("name", ["e_age", "age_error", "E_AGE"])
def test_an_age_and_its_error_in_gyr(name: str) -> None:
    """By finite differences of the token."""
    found = read(pa.table({"Age": [4.0, 0.0, None], name: [0.4, 0.1, 0.1]}))
    assert values(found, "log_age") == pytest.approx([np.log10(4e9), NAN, NAN], nan_ok=True)
    slope = (np.log10(4.001e9) - np.log10(3.999e9)) / 0.002
    assert errors(found, "log_age")[0] == pytest.approx(0.4 * slope, rel=1e-6)


def test_dust_and_its_error_in_magnitudes() -> None:
    found = read(pa.table({"EBV": [0.1, -0.02, 20.0], "ebv_error": [0.03, 0.01, 1.0]}))
    assert values(found, "logebv") == pytest.approx([np.log(0.1), -7.0, NAN], nan_ok=True)
    assert errors(found, "logebv")[0] == pytest.approx(0.3)
    of_gaia = read(pa.table({"ebv": [0.1], "e_ln_ebv": [0.2], "e_ebv": [0.05]}))
    assert errors(of_gaia, "logebv") == [0.2]
    assert of_gaia.ignored == ("e_ebv",)


QUANTITIES = QTable(
    {
        "teff": [4.8, 4.2] * units.kK,
        "e_teff": [50.0, 20.0] * units.K,
        "mass": [2.5, 2.0] * units.Unit("1e30 kg"),
        "age": [500.0, 8000.0] * units.Myr,
        "jh": [612.0, 700.0] * units.mmag,
    }
)


def test_quantities_are_converted() -> None:
    found = read(QUANTITIES)
    assert values(found, "teff") == pytest.approx([4800.0, 4200.0])
    assert errors(found, "teff") == pytest.approx([50.0, 20.0])
    solar_mass = 1.98840987e30  # kg (IAU 2015 B3, CODATA 2018)
    assert values(found, "mass") == pytest.approx([2.5e30 / solar_mass, 2e30 / solar_mass])
    assert values(found, "log_age") == pytest.approx([np.log10(5e8), np.log10(8e9)])
    assert values(found, "jh") == pytest.approx([0.612, 0.7])


def test_units_of_arrow_fields_and_of_files_are_the_same() -> None:
    stated = {name: str(QUANTITIES[name].unit) for name in QUANTITIES.colnames}
    plain = {name: QUANTITIES[name].value for name in QUANTITIES.colnames}
    schema = pa.schema(
        [pa.field(n, pa.float64(), metadata={"unit": unit}) for n, unit in stated.items()]
    )
    wanted = read(QUANTITIES).given_tokens.values
    for found in (
        read(pa.table(plain, schema=schema)),
        read(pa.table(plain), units=stated),
        read(Table(QUANTITIES)),
    ):
        np.testing.assert_allclose(found.given_tokens.values, wanted, rtol=1e-14)


@pytest.mark.parametrize(
    ("name", "unit", "wanted"),
    [("teff", "m", "K"), ("e_teff", "mag", "K"), ("log_age", "Gyr", "dex"), ("teff", "hot", "K"),
     ("bprp", "Jy", "mag"), ("e_age", "K", "Gyr"), ("logebv", "mag", "a pure number")],
)  # fmt: skip
def test_a_unit_that_cannot_be_converted_is_refused(name: str, unit: str, wanted: str) -> None:
    table = pa.table({"teff": [1.0], "age": [1.0]} | {name: [1.0]})
    with pytest.raises(ContractError, match=rf"cannot be converted\n.*{wanted}.*\n  found: {unit}"):
        read(table, units={name: unit}, where="t.fits")


def test_logarithms_are_converted_by_their_zero_point() -> None:
    assert conversion("dex(m/s2)", "dex", "dex(cm / s2)") == (1.0, pytest.approx(2.0))
    assert conversion("log(Gyr)", "dex", "dex(yr)") == (1.0, pytest.approx(9.0))
    for unit in ("[cm/s2]", "log.cm.s**-2", "dex", "", "dex(cm / s2)"):
        assert conversion(unit, "dex", "dex(cm / s2)") == (1.0, pytest.approx(0.0))
    assert conversion("'electron'.s**-1", "electron.s**-1") == (1.0, 0.0)
    found = read(pa.table({"logg": [0.4], "e_logg": [0.1]}),
                 units={"logg": "dex(m/s2)", "e_logg": "dex(m/s2)"})  # fmt: skip
    assert values(found, "logg") == pytest.approx([2.4])
    assert errors(found, "logg") == pytest.approx([0.1])


def test_masks_of_every_kind_are_missing_values() -> None:
    quantity = Masked([4800.0, 1.0, 5100.0] * units.K, mask=[False, True, False])
    tables = (
        pa.table({"teff": pa.array([4800.0, None, 5100.0])}),
        pa.table({"teff": pa.array([4800, None, 5100], pa.int32())}),
        pa.table({"teff": pa.array(["4800", "null", "5.1e3"])}),
        pd.DataFrame({"teff": [4800.0, NAN, 5100.0]}),
        pd.DataFrame({"teff": pd.array([4800, pd.NA, 5100], dtype="Int64")}),
        pd.DataFrame({"teff": [4800.0, None, 5100.0]}, dtype=object),
        pd.DataFrame({"teff": pd.array([4800, None, 5100], dtype="int64[pyarrow]")}),
        Table({"teff": MaskedColumn([4800, 1, 5100], mask=[False, True, False])}),
        QTable({"teff": quantity}),
    )
    for table in tables:
        np.testing.assert_array_equal(values(read(table), "teff"), [4800.0, NAN, 5100.0])


def test_errors_that_are_no_errors() -> None:
    """Negative: unknown. Zero: exact. Infinite: the value says nothing."""
    given = {"teff": [4800.0] * 4, "e_teff": [-9999.0, 0.0, np.inf, NAN]}
    found = read(pa.table(given))
    np.testing.assert_array_equal(values(found, "teff"), [4800.0, 4800.0, NAN, 4800.0])
    np.testing.assert_array_equal(errors(found, "teff"), [NAN, 0.0, NAN, NAN])


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        (("teff", "TEFF"), "the same token"),
        (("AGE", "age"), "the same token"),
        (("teff", "e_teff", "teff_error"), "the error of teff"),
    ],
)
def test_two_columns_of_one_quantity_are_refused(columns: tuple[str, ...], what: str) -> None:
    with pytest.raises(ContractError, match=f"two columns are {what}"):
        read(pa.table({name: [1.0] for name in columns}), JOB)


def test_names_that_differ_in_case_are_chosen_as_in_files() -> None:
    """The exact name is read; without it, two others are refused."""
    magnitudes = {"phot_g_mean_mag": [12.0], "PHOT_G_MEAN_MAG": [99.0], "teff": [1.0]}
    assert read(pa.table(magnitudes), JOB).tokens().g_mag.tolist() == [12.0]
    magnitudes["Phot_G_Mean_Mag"] = magnitudes.pop("phot_g_mean_mag")
    with pytest.raises(ContractError, match="differ in case alone"):
        read(pa.table(magnitudes), JOB)
    twice = pa.Table.from_arrays([pa.array([1.0])] * 3, ["phot_g_mean_mag"] * 2 + ["teff"])
    with pytest.raises(ContractError, match="two columns are the same as phot_g_mean_mag"):
        read(twice, JOB)


def test_columns_that_cannot_be_read_are_refused() -> None:
    for column in (["hot"], [True], [[1.0]], [{"a": 1}]):
        with pytest.raises(ContractError, match=r"must hold numbers(.|\n)*t.csv, column teff"):
            read(pa.table({"teff": column}), where="t.csv")
    with_parallax = Job("test", inputs=("bprp", "g_fakemag"))
    for job in (JOB, with_parallax):
        with pytest.raises(ContractError, match="no column that the model can read"):
            read(pa.table({"phot_g_mean_mag": [12.0], "ra": [1.0]}), job)
    given = pa.table({"phot_g_mean_mag": [12.0], "ra": [1.0], "dec": [2.0], "parallax": [1.0]})
    assert read(given, with_parallax).used == ("phot_g_mean_mag", "ra", "dec", "parallax")
    without = given.drop_columns(["parallax"]).append_column("teff", [[4500.0]])
    assert read(without, with_parallax).ignored == ("ra", "dec")
    with pytest.raises(ContractError, match="not a table"):
        read({"teff": [1.0]})
    with pytest.raises(JobError, match="inputs that cannot be read"):
        read(pa.table({"teff": [1.0]}), Job("test", inputs=("colour",)))


def gaia() -> pa.Table:
    """The 30 bright stars' gaia_source columns with 2MASS, dust and parallaxes lent to them."""
    table = real_stars.bright_auxiliary()
    random = np.random.default_rng(4)
    lent = {
        "j_m": random.uniform(5, 6, 30), "j_msigcom": np.full(30, 0.02),
        "h_m": random.uniform(4, 5, 30), "h_msigcom": np.full(30, 0.03),
        "ks_m": random.uniform(4, 5, 30), "ks_msigcom": np.full(30, 0.025),
        "ph_qual": ["AAA", "AAB", "AAA"] * 10, "ebv": random.uniform(0, 0.3, 30),
        "e_ln_ebv": np.full(30, 0.2), "phot_bp_mean_flux_over_error": np.full(30, 400.0),
        "phot_rp_mean_flux_over_error": np.full(30, 500.0), "parallax_error": np.full(30, 0.02),
        "nu_eff_used_in_astrometry": np.full(30, 1.5),
        "astrometric_params_solved": np.full(30, 31),
    }  # fmt: skip
    for name, column in lent.items():
        table = table.append_column(name, pa.array(column))
    return table


def joined() -> pa.Table:
    """Spectra and gaia_source columns of the 30 stars in one table."""
    table = real_stars.bright()
    for name in gaia().column_names:
        if name not in table.column_names:
            table = table.append_column(name, gaia()[name])
    return table


def as_run(job: Job) -> Any:
    """The tokens that a run makes of the same columns."""
    contract = load_contract("gaia_source")
    source = gaia()
    known = {n: source[n] for n in source.column_names if n in contract}
    spectra = real_stars.bright()
    wanted = [n for n in load_contract("xp_continuous").names if n in spectra.column_names]
    if not job.correlations:
        wanted = [name for name in wanted if "correlations" not in name]
    return tokens(spectra.select(wanted), contract.assemble(known, 30), VOCABULARY, job)


JOBS = {
    "default": JOB,
    "parallax": Job("test", inputs=("bprp", "jk", "g_fakemag"), mask_irrelevant=False),
    "correlations": Job("test", correlations=True, coefficients=20),
    "spectra": Job("test", inputs=()),
}


def loud(table: pa.Table) -> pa.Table:
    return table.rename_columns([name.upper() for name in table.column_names])


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
@pytest.mark.parametrize("form", ["arrow", "capitals", "pandas", "text", "in pieces"])
def test_spectra_and_photometry_give_the_tokens_of_a_run(form: str, job: Job) -> None:
    table: Any = joined()
    if form == "capitals":
        table = loud(table)
    elif form == "pandas":
        table = table.to_pandas()
    elif form == "text":  # arrays as the archive's CSV has them
        for name in table.column_names:
            if pa.types.is_list(table[name].type):
                texts = [f"({', '.join(map(repr, row))})" for row in table[name].to_pylist()]
                table = table.set_column(table.column_names.index(name), name, pa.array(texts))
    inputs, wanted = read(table, job), as_run(job)
    if form == "in pieces":
        pieces = [inputs.tokens(start, 7) for start in range(0, 30, 7)]
        np.testing.assert_array_equal(
            np.concatenate([piece.values for piece in pieces]), inputs.tokens().values
        )
    made = inputs.tokens()
    # E(B-V) of a run passes through float32.
    np.testing.assert_allclose(made.values, wanted.values, rtol=1e-6)
    np.testing.assert_allclose(made.errors, wanted.errors, rtol=1e-6)
    np.testing.assert_array_equal(made.g_mag, wanted.g_mag)
    for ours, theirs in zip(
        input_noise(made, VOCABULARY, job).correlated,
        input_noise(wanted, VOCABULARY, job).correlated, strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(ours.matrix, theirs.matrix, rtol=1e-6)


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_only_used_columns_matter(job: Job) -> None:
    table = joined()
    inputs = read(table, job)
    assert {*inputs.used} | {*inputs.ignored} == {*table.column_names}
    again = read(table.select(list(inputs.used)), job)
    np.testing.assert_array_equal(again.tokens().values, inputs.tokens().values)
    np.testing.assert_array_equal(again.tokens().errors, inputs.tokens().errors)


def test_arrays_of_astropy_with_masks_lose_their_elements() -> None:
    table = joined()
    columns: dict[str, Any] = {}
    for name in table.column_names:
        if pa.types.is_list(table[name].type):
            array = real_stars.stacked(table, name)
            mask = np.zeros(array.shape, bool)
            if name in ("bp_coefficients", "bp_coefficient_errors"):
                mask[0], mask[1, 3] = True, True
            columns[name] = MaskedColumn(array, mask=mask)
        else:
            columns[name] = table[name].to_pylist()
    made, whole = read(Table(columns), JOB).tokens(), as_run(JOB)
    bp, rp = (VOCABULARY.coefficient_columns(band) for band in ("bp", "rp"))
    assert np.isnan(made.values[0, bp]).all()
    assert not made.bp[0]
    assert np.isnan(made.values[1, bp[3]])
    np.testing.assert_array_equal(made.values[2:, bp], whole.values[2:, bp])
    np.testing.assert_array_equal(made.values[:, rp], whole.values[:, rp])


def test_fluxes_of_another_unit_are_converted() -> None:
    """Coefficients in electrons per hour: a scale that the G flux does not have."""
    table = joined()
    for name in ("bp_coefficients", "bp_coefficient_errors"):
        scaled = pa.array(list(real_stars.stacked(table, name) * 3600.0))
        table = table.set_column(table.column_names.index(name), name, scaled)
    stated = {"bp_coefficients": "electron / h", "bp_coefficient_errors": "electron / h",
              "phot_g_mean_mag": "mag"}  # fmt: skip
    made, wanted = read(table, JOB, units=stated).tokens(), as_run(JOB)
    np.testing.assert_allclose(made.values, wanted.values, rtol=1e-6)
    np.testing.assert_allclose(made.errors, wanted.errors, rtol=1e-6)


def test_a_token_by_name_comes_before_one_that_is_made_star_by_star() -> None:
    colour = pa.array([None if row % 2 else 1.23 for row in range(30)])
    table = joined().append_column("BPRP", colour).append_column("e_bprp", pa.array([0.5] * 30))
    made, wanted = read(table, JOB).tokens(), as_run(JOB)
    column = VOCABULARY.column("bprp")
    assert (made.values[::2, column] == 1.23).all()
    assert (made.errors[::2, column] == 0.5).all()
    np.testing.assert_array_equal(made.values[1::2, column], wanted.values[1::2, column])
    np.testing.assert_array_equal(made.errors[1::2, column], wanted.errors[1::2, column])


def test_photometry_without_spectra_gives_colours() -> None:
    made, wanted = read(gaia(), JOB).tokens(), as_run(JOB)
    for name in ("bprp", "jh", "jk", "logebv"):
        column = VOCABULARY.column(name)
        np.testing.assert_allclose(made.values[:, column], wanted.values[:, column], rtol=1e-6)
    assert np.isnan(made.values[:, VOCABULARY.coefficient_columns("bp")]).all()
    np.testing.assert_array_equal(made.g_mag, wanted.g_mag)


def test_other_names_in_use_give_the_same_tokens() -> None:
    """As in the auxiliary tables of a run: names of VizieR, and suffixes of a crossmatch."""
    names = {"j_m": "Jmag", "h_m": "Hmag", "ks_m": "Kmag", "phot_bp_mean_mag": "BPmag",
             "phot_rp_mean_mag": "phot_rp_mean_mag_gaia",
             "bp_coefficients": "bp_coefficients_xp"}  # fmt: skip
    table = joined()
    renamed = table.rename_columns([names.get(name, name) for name in table.column_names])
    found, wanted = read(renamed, JOB), read(table, JOB)
    np.testing.assert_array_equal(found.tokens().values, wanted.tokens().values)
    assert {"Jmag", "BPmag", "bp_coefficients_xp"} <= set(found.used)


def masks_of_astropy(table: pa.Table) -> pa.Table:
    """Other stars' spectra behind masks, in columns as astropy writes them to Parquet."""
    hidden = pa.array([row == 3 for row in range(table.num_rows)])
    for name in ("bp_coefficients", "bp_coefficient_errors", "phot_g_mean_mag"):
        table = table.append_column(f"{name}.mask", hidden)
    return table


def without_those(table: pa.Table) -> pa.Table:
    for name in ("bp_coefficients", "bp_coefficient_errors", "phot_g_mean_mag"):
        rows = table[name].to_pylist()
        rows[3] = None
        column = pa.array(rows, table.schema.field(name).type)
        table = table.set_column(table.column_names.index(name), name, column)
    return table


@pytest.mark.parametrize("form", ["arrow", "pandas", "polars", "struct"])
def test_masks_in_columns_of_their_own(form: str) -> None:
    table: Any = masks_of_astropy(joined())
    if form == "pandas":
        table = table.to_pandas()
    elif form == "polars":
        table = pytest.importorskip("polars").from_arrow(table)
    elif form == "struct":
        names = [name for name in table.column_names if name.startswith(("bp_", "rp_"))]
        arrays = [table[name].combine_chunks() for name in names]
        struct = pa.StructArray.from_arrays(arrays, names)
        table = table.drop_columns(names).append_column("xp", struct)
    found, wanted = read(table, JOB), read(without_those(joined()), JOB)
    np.testing.assert_array_equal(found.tokens().values, wanted.tokens().values)
    assert "bp_coefficients.mask" in found.used


def test_one_column_per_element_is_an_array() -> None:
    table = joined()
    plain = read(table, JOB).tokens()
    names = {"bp_coefficients": "bp_coeff_", "rp_coefficient_errors": "e_rp_coeff_"}
    for name, start in names.items():
        matrix = real_stars.stacked(table, name)
        table = table.drop_columns(name)
        for k in range(matrix.shape[1]):
            table = table.append_column(f"{start}{k}", pa.array(matrix[:, k]))
    np.testing.assert_array_equal(read(table, JOB).tokens().values, plain.values)
    np.testing.assert_array_equal(read(table.to_pandas(), JOB).tokens().errors, plain.errors)
    with pytest.raises(ContractError, match="one is missing"):
        read(table.drop_columns("bp_coeff_7"), JOB)
    tokens_alone = read(pa.table({"bp0": [1.0], "bp7": [0.1], "e_bp7": [0.01]}), JOB)
    assert tokens_alone.spectra is None
    assert errors(tokens_alone, "bp7") == [0.01]


@pytest.mark.parametrize("form", ["polars", "stream", "reader", "nested-pandas"])
def test_any_table_with_the_arrow_stream(form: str) -> None:
    table, wanted = joined(), as_run(JOB)

    class Stream:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return table.__arrow_c_stream__(requested_schema)

    given: Any = Stream() if form == "stream" else table.to_reader(max_chunksize=7)
    if form == "polars":
        given = pytest.importorskip("polars").from_arrow(table)
    elif form == "nested-pandas":
        arrays = [table[name].combine_chunks() for name in ("bp_coefficients", "rp_coefficients")]
        struct = pa.StructArray.from_arrays(arrays, ["bp_coefficients", "rp_coefficients"])
        given = table.drop_columns(["bp_coefficients", "rp_coefficients"]).to_pandas()
        given["xp"] = pd.Series(pd.arrays.ArrowExtensionArray(struct))
    np.testing.assert_allclose(read(given, JOB).tokens().values, wanted.values, rtol=1e-6)


def test_what_is_lazy_is_to_be_read_first() -> None:
    class Lazy:
        def collect(self) -> None: ...

    with pytest.raises(ContractError, match=r"not a table(.|\n)*collect\(\) first"):
        read(Lazy())


def test_null_structs_and_lists_hide_what_is_behind() -> None:
    """Arrow keeps values behind a null; they are another star's as often as not."""
    table = joined().slice(0, 3)
    names = ["bp_coefficients", "bp_coefficient_errors", "rp_coefficients", "rp_coefficient_errors"]
    arrays = [table[name].combine_chunks() for name in names]
    hidden = pa.array([False, True, False])
    struct = pa.StructArray.from_arrays(arrays, names, mask=hidden)
    lists = {
        name: pa.ListArray.from_arrays(array.offsets, array.values, mask=hidden)
        for name, array in zip(names, arrays, strict=True)
    }
    fixed = {
        name: pa.FixedSizeListArray.from_arrays(array.values, 55, mask=hidden)
        for name, array in zip(names, arrays, strict=True)
    }
    plain = read(table, JOB).tokens().values
    coefficients = [*VOCABULARY.coefficient_columns("bp"), *VOCABULARY.coefficient_columns("rp")]
    for columns in ({"xp": struct}, lists, fixed):
        made = read(pa.table({"source_id": table["source_id"], **columns}), JOB).tokens().values
        assert np.isnan(made[1, coefficients]).all()
        assert np.isfinite(made[[0, 2]][:, coefficients]).sum() > 50
        assert made.shape == plain.shape


def test_matrices_of_gaiaxpy_are_correlations() -> None:
    """GaiaXPy's DataFrames hold arrays of numpy and 55 x 55 matrices."""
    with warnings.catch_warnings(action="ignore"):  # it sets an option that pandas gives up
        module = pytest.importorskip("gaiaxpy.core.generic_functions")
    job = JOBS["correlations"]
    table, wanted = joined(), as_run(job)
    frame = table.to_pandas()
    for band in ("bp", "rp"):
        name = f"{band}_coefficient_correlations"
        frame[name] = [module.array_to_symmetric_matrix(np.array(row), 55) for row in frame[name]]
    assert frame["bp_coefficient_correlations"][0].shape == (55, 55)
    matrices = np.stack(frame["bp_coefficient_correlations"])
    whole = Table({n: real_stars.stacked(table, n) if pa.types.is_list(table[n].type)
                   else table[n].to_pylist() for n in table.column_names})  # fmt: skip
    whole["bp_coefficient_correlations"] = matrices
    for given in (frame, whole):
        found = read(given, job).tokens()
        for band in ("bp", "rp"):
            np.testing.assert_allclose(
                found.correlations[band], wanted.correlations[band], rtol=1e-6
            )
    frame.loc[0, "bp_coefficient_correlations"][3, 5] += 0.1
    with pytest.raises(ContractError, match="a column of another type"):
        read(frame, job)


def test_identifiers_are_those_of_a_file() -> None:
    """Other names, designations, 0 and -1 for none; a float is refused, the index is read."""
    ids = [4295806720, 38655544960]
    for column in (
        {"DESIGNATION": [f"Gaia DR3 {star}" for star in ids]},
        {"gaia_dr3_source_id": ids},
        {"source_id": [str(star) for star in ids]},
    ):
        found = read(pa.table({"teff": [1.0, 2.0], **column}), JOB).source_id
        assert found is not None
        assert found.to_pylist() == ids
    none = read(pa.table({"teff": [1.0, 2.0], "source_id": [0, -1]}), JOB).source_id
    assert none is not None
    assert none.null_count == 2
    with pytest.raises(ContractError, match=r"is a float(.|\n)*Int64"):
        read(pd.DataFrame({"teff": [1.0, 2.0], "source_id": [ids[0], np.nan]}), JOB)
    indexed = pd.DataFrame({"teff": [1.0, 2.0]}, index=pd.Index(ids, name="source_id"))
    found = read(indexed, JOB).source_id
    assert found is not None
    assert found.to_pylist() == ids


def test_units_that_astropy_writes_to_parquet_are_known_in_memory(tmp_path: Any) -> None:
    import pyarrow.parquet as pq

    QUANTITIES.write(tmp_path / "q.parquet")
    found = read(pq.read_table(tmp_path / "q.parquet"))
    np.testing.assert_allclose(
        found.given_tokens.values, read(QUANTITIES).given_tokens.values, rtol=1e-14
    )
