"""Contracts: the TOML files in schemas/ become Arrow schemas, and tables are held to them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from catalogproc.contract import Contract, load_contract
from catalogproc.errors import ContractError
from catalogproc.flags import load_flags, load_input_flags
from catalogproc.resources import shipped

CONTRACTS = ("catalog", "gaia_source", "receipt", "rejected", "training", "xp_continuous")


@pytest.mark.parametrize("name", CONTRACTS)
def test_every_column_says_what_it_is(name: str) -> None:
    contract = load_contract(name)
    assert contract.columns
    for column in contract.columns:
        assert column.description, column.name
        assert pa.types.is_nested(column.arrow_type) or column.arrow_type is not None
        field = contract.arrow_schema().field(column.name)
        assert field.metadata[b"description"].decode() == column.description
        assert field.metadata.get(b"unit", b"").decode() == column.unit


def test_units_are_read_by_astropy() -> None:
    from astropy import units

    for column in load_contract("catalog").columns:
        if column.unit != "dex":  # not in the standards, and yet what every reader knows
            units.Unit(column.unit, format="vounit")
            units.Unit(column.unit, format="fits")
    for name in ("catalog", "gaia_source", "xp_continuous"):
        for column in load_contract(name).columns:
            units.Unit(column.unit)


def test_ucds_follow_the_ivoa_vocabulary() -> None:
    from astropy.io.votable.ucd import check_ucd

    for name in ("catalog", "gaia_source", "xp_continuous"):
        for column in load_contract(name).columns:
            if column.ucd:
                assert check_ucd(column.ucd, check_controlled_vocabulary=True), column


def test_catalog_has_the_published_columns() -> None:
    catalog = load_contract("catalog")
    assert catalog["source_id"].type == "int64"
    assert catalog["quality_flags"].type == catalog["input_flags"].type == "int32"
    for quantity in ("mass", "log_age", "age", "teff", "logg", "m_h", "ln_ebv", "g_fakemag"):
        assert catalog[f"e_{quantity}"].unit == catalog[quantity].unit
    assert not any(column.nullable for column in catalog.columns)


def test_assemble_fills_what_is_absent_and_check_accepts_it() -> None:
    catalog = load_contract("catalog")
    table = catalog.assemble({"source_id": np.array([2**62 + 1], dtype=np.int64)}, rows=1)
    catalog.check(table)
    assert table["source_id"][0].as_py() == 2**62 + 1
    assert np.isnan(table["teff"][0].as_py())
    assert table["good_params"][0].as_py() is False


def test_unknown_columns_are_refused() -> None:
    with pytest.raises(ContractError, match="columns that catalog does not have"):
        load_contract("catalog").assemble({"colour": [1.0]}, rows=1)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("e_teff", pa.array([-1.0], pa.float32()), "values out of range"),
        ("teff", pa.array([4500.0], pa.float64()), "wrong type"),
        ("source_id", pa.array([None], pa.int64()), "nulls"),
    ],
)
def test_check_names_the_column(column: str, values: pa.Array, message: str) -> None:
    catalog = load_contract("catalog")
    table = catalog.assemble({"source_id": [1]}, rows=1)
    at = table.column_names.index(column)
    broken = table.set_column(at, pa.field(column, values.type), values)
    with pytest.raises(ContractError, match=message) as caught:
        catalog.check(broken, where="part-0")
    assert column in str(caught.value)
    assert "part-0" in str(caught.value)


def test_check_reports_missing_and_unknown_columns() -> None:
    with pytest.raises(ContractError, match=r"missing \['source_id'") as caught:
        load_contract("rejected").check(pa.table({"x": [1]}))
    assert "unknown ['x']" in str(caught.value)


def test_unknown_contract_lists_the_known_ones() -> None:
    with pytest.raises(ContractError, match="catalog") as caught:
        load_contract("nonsense")
    assert "nonsense" in str(caught.value)


def test_flags_keep_clear_of_the_sign_bit_and_their_rules_hold() -> None:
    flags = load_flags()
    assert max(flag.bit for flag in flags.flags) < 31
    assert flags.good_mass_age & flags.good_params == flags.good_params
    for name in ("NO_XP", "RUWE", "XP_BOX", "UNC_TEFF", "OOD_LATENT", "SPEC_CHI2", "INFER_FAIL"):
        assert flags.good_params & flags[name].value, name
    for name in ("NOT_GIANT", "MAY_BE_DWARF"):
        assert flags.good_params & flags[name].value, name
    for name in ("PLX_INCONSISTENT", "HIGH_EBV"):
        assert flags.good_mass_age & flags[name].value, name
    assert not flags.good_mass_age & flags["XP_BLEND"].value
    assert flags.words(flags.mask("RUWE", "G_RANGE")) == ["G_RANGE", "RUWE"]
    facts = load_input_flags()
    assert max(flag.bit for flag in facts.flags) < 31
    # flag("NAME") of a condition needs no column.
    assert not {flag.name for flag in facts.flags} & {flag.name for flag in flags.flags}


def test_markdown_lists_every_column() -> None:
    contract: Contract = load_contract("catalog")
    table = contract.markdown()
    assert all(f"`{name}`" in table for name in contract.names)


def test_schemas_readme_names_every_file() -> None:
    readme = (shipped("schemas") / "README.md").read_text()
    assert all(path.name in readme for path in shipped("schemas").glob("*.toml"))
