"""Published catalogs as their authors lay them out, compared with a catalog that differs by known
amounts."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from numpy.typing import NDArray
from support.catalogs import catalog_table, finished_run, identity, write_chunk

from catalogproc.datasets.table_io import column_names
from catalogproc.errors import ContractError, InputError, ReleaseError
from catalogproc.evaluation.external_report import References, crosscheck
from catalogproc.evaluation.recipes import (
    UNITS,
    find_column,
    load_recipe,
    recognise,
    shipped_recipes,
)
from catalogproc.evaluation.reference_catalog import read_reference
from catalogproc.evaluation.reference_comparison import catalog_identifiers, compare
from catalogproc.evaluation.reference_identifiers import IdentifierTables
from catalogproc.flags import load_flags
from catalogproc.release import load_release
from catalogproc.rundir.manifest import open_run

STARS = 600
FACTORS = {"age": 0.9}
OFFSETS = {"teff": -50.0, "logg": -0.1, "m_h": 0.05, "mass": -0.1}
"""The published value is this catalog's, times a factor, plus an offset."""
BIAS = {"teff": 50.0, "logg": 0.1, "m_h": -0.05, "mass": 0.1, "age_percent": 100 * (1 / 0.9 - 1)}
ERRORS = {"teff": 40.0, "logg": 0.05, "m_h": 0.04, "mass": 0.15, "age": 0.8}

Values = dict[str, NDArray]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    finished_run(folder, files=1, chunks=1, tables=[catalog_table(STARS, seed=4)])
    return folder


@pytest.fixture(scope="module")
def stars(run: Path) -> Values:
    table = pq.read_table(run / "catalog")
    return {name: table[name].to_numpy() for name in table.column_names}


@pytest.fixture(scope="module")
def published(stars: Values) -> Values:
    """300 of the stars, whose values are not quite the catalog's, and 20 others."""
    rows = np.r_[0:300, 0:20]
    found = {
        label: stars[label][rows] * FACTORS.get(label, 1.0) + OFFSETS.get(label, 0.0)
        for label in ("teff", "logg", "m_h", "mass", "age")
    }
    ids = stars["source_id"][rows].astype(np.int64)
    ids[300:] += 2  # odd identifiers, so these stars are in no other row
    return {"source_id": ids} | {name: value.astype(float) for name, value in found.items()}


def both(p: Values, label: str, name: str, low: str, high: str, unit: str = "") -> Values:
    """A value and its 16th and 84th percentile."""
    error = ERRORS[label]
    found = {name: p[label], low: p[label] - error, high: p[label] + error}
    return {key: Unit(value, unit) if unit else value for key, value in found.items()}


def plain(p: Values, label: str, name: str, error: str) -> Values:
    return {name: p[label], error: np.full(len(p[label]), ERRORS[label])}


def Unit(value: NDArray, unit: str) -> NDArray:
    from astropy.table import Column

    return Column(value, unit=unit)


def flame(p: Values) -> Values:
    return (
        both(p, "mass", "mass_flame", "mass_flame_lower", "mass_flame_upper", "solMass")
        | both(p, "age", "age_flame", "age_flame_lower", "age_flame_upper", "Gyr")
    )  # fmt: skip


def gspphot(p: Values) -> Values:
    found: Values = {}
    for label, name in (("teff", "teff"), ("logg", "logg"), ("m_h", "mh")):
        word = f"{name}_gspphot"
        found |= both(p, label, word, f"{word}_lower", f"{word}_upper")
    return found


def ap_xp(p: Values) -> Values:
    found = {"source_id": p["source_id"]} | flame(p) | gspphot(p)
    for label in ("mass", "age"):
        word = f"{label}_gspphot"
        found |= both(p, label, word, f"{word}_lower", f"{word}_upper")
    return found


def apokasc(state: str, age: str) -> Callable[[Values], Values]:
    def layout(p: Values) -> Values:
        n = len(p["mass"])
        return (
            {"KIC": np.arange(n), "GaiaDR3": p["source_id"],
             "CatTab": np.full(n, "Gold    "), "EvolSt": np.full(n, state)}
            | plain(p, "teff", "Teff", "e_Teff") | plain(p, "logg", "loggSeis", "e_loggSeis")
            | plain(p, "mass", "Mass", "e_Mass") | plain(p, "age", age, f"e_{age}")
            | {f"E_{age}": np.full(n, ERRORS["age"])}
        )  # fmt: skip

    return layout


def starhorse(p: Values) -> Values:
    found = {"source_id": p["source_id"], "sh_outflag": np.full(len(p["mass"]), "0000")}
    for label, name in (("teff", "teff"), ("logg", "logg"), ("m_h", "met"), ("mass", "mass")):
        found |= both(p, label, f"{name}50", f"{name}16", f"{name}84")
    return found


def shboost(p: Values) -> Values:
    relative = ERRORS["teff"] / p["teff"] / np.log(10)
    return (
        {"source_id": p["source_id"], "xgb_logteff": np.log10(p["teff"]),
         "xgbdist_logteff_std": relative}
        | plain(p, "logg", "xgb_logg", "xgbdist_logg_std")
        | plain(p, "m_h", "xgb_met", "xgbdist_met_std")
        | plain(p, "mass", "xgb_mass", "xgbdist_mass_std")
    )  # fmt: skip


def zgr(p: Values) -> Values:
    n = len(p["teff"])
    zero = np.zeros(n)
    value = np.stack([p["teff"] / 1000, p["m_h"], p["logg"], zero, zero], axis=1)
    errors = (ERRORS["teff"] / 1000, ERRORS["m_h"], ERRORS["logg"], 0.1, 0.1)
    return {
        "gdr3_source_id": p["source_id"], "stellar_params_est": value,
        "stellar_params_err": np.tile(errors, (n, 1)), "teff_confidence": np.ones(n),
        "quality_flags": np.zeros(n, np.uint8),
    }  # fmt: skip


def starflow(p: Values) -> Values:
    n = len(p["mass"])
    return (
        {"sdss_id": np.arange(n) + 54_000_000, "catalogid": np.arange(n),
         "training_density": np.full(n, 5e9), "bitmask": np.zeros(n, np.int64)}
        | both(p, "mass", "mass", "e_n_mass", "e_p_mass")
        | both(p, "age", "age", "e_n_age", "e_p_age")
    )  # fmt: skip


LAYOUTS: dict[str, tuple[str, Callable[[Values], Values]]] = {
    "gaia-dr3-flame": ("vot", lambda p: {"source_id": p["source_id"]} | flame(p)),
    "gaia-dr3-gspphot": ("fits", lambda p: {"SOURCE_ID": p["source_id"]} | gspphot(p)),
    "apokasc3-rgb": ("csv", apokasc("RGB", "AgeRGB")),
    "apokasc3-rc": ("csv", apokasc("RC", "AgeRC")),
    "apo-k2": ("csv", lambda p: (
        {"epic": np.arange(len(p["mass"])), "gaia_source": p["source_id"],
         "kappa_m": np.ones(len(p["mass"]))}
        | plain(p, "teff", "teff", "teff_err") | plain(p, "logg", "logg", "logg_err")
        | plain(p, "m_h", "meh", "meh_err") | plain(p, "mass", "mass", "mass_err"))),
    "apo-k2-ages": ("csv", lambda p: (
        {"EPIC": np.arange(len(p["mass"])), "GaiaEDR3": p["source_id"]}
        | plain(p, "mass", "Mstar", "e_Mstar") | plain(p, "age", "Age", "e_Age")
        | {"E_Age": np.full(len(p["age"]), ERRORS["age"])})),
    "starhorse-2021": ("parquet", starhorse),
    "shboost-2024": ("parquet", shboost),
    "andrae-xgboost": ("fits", lambda p: {
        "source_id": p["source_id"], "catwise_w1": p["mass"], "teff_xgboost": p["teff"],
        "logg_xgboost": p["logg"], "mh_xgboost": p["m_h"]}),
    "zgr-2023": ("fits", zgr),
    "starflow": ("fits", starflow),
    "seismic-labels": ("parquet", lambda p: {
        "source_id": p["source_id"], "mass": p["mass"], "mass_lo": np.full(len(p["mass"]), 0.1),
        "mass_hi": np.full(len(p["mass"]), 0.2), "age": p["age"],
        "age_lo": np.full(len(p["age"]), 0.8), "age_hi": np.full(len(p["age"]), 0.8)}),
    "plain": ("ecsv", lambda p: (
        {"source_id": p["source_id"], "Mass": Unit(p["mass"] * 1.98840987e30, "kg"),
         "mass_error": Unit(np.full(len(p["mass"]), 0.15 * 1.98840987e30), "kg"),
         "age": Unit(p["age"] * 1000, "Myr"),
         "e_age": Unit(np.full(len(p["age"]), 800.0), "Myr")})),
}  # fmt: skip
FORMS = {"csv": "ascii.csv", "ecsv": "ascii.ecsv", "fits": "fits", "vot": "votable"}


def written(path: Path, columns: Values) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table({name: np.asarray(x) for name, x in columns.items()}), path)
    else:
        Table(columns).write(path, format=FORMS[path.suffix[1:]])
    return path


def lines(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_every_shipped_recipe_has_a_layout_here() -> None:
    assert {*LAYOUTS, "gaia-dr4-flame", "gaia-dr4-gspphot"} == {*shipped_recipes()}
    for name in shipped_recipes():
        recipe = load_recipe(name)
        assert recipe.source, name
        assert recipe.cite or name == "plain", name


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_catalog_by_its_own_column_names(
    name: str, run: Path, stars: Values, published: Values, tmp_path: Path
) -> None:
    """It is recognised; biases are those that were put in; z is that of both errors."""
    suffix, layout = LAYOUTS[name]
    path = written(tmp_path / f"table.{suffix}", layout(published))
    tables = IdentifierTables()
    if name == "starflow":
        link = written(tmp_path / "mwm.csv", {
            "sdss_id": np.arange(len(published["mass"])) + 54_000_000,
            "gaia_dr3_source_id": published["source_id"],
        })  # fmt: skip
        tables = IdentifierTables(link)
    recipes = {recipe.name: recipe for recipe in recognise(column_names(path), (), path)}
    # One table of APOKASC-3 has stars of the branch and of the clump.
    assert {*recipes} == ({"apokasc3-rgb", "apokasc3-rc"} if "apokasc3" in name else {name})
    recipe = recipes[name]
    reference = read_reference(path, recipe, catalog_identifiers(run), tables)
    assert reference.rows["not in the catalog"] == 20
    assert reference.rows["in the catalog"] == 300
    found = compare(run, reference)
    assert (found.stars.catalog_stars, len(found.stars.source_id)) == (STARS, 300)
    scores = {one.quantity: one.score for one in found.of("sample") if one.sample == "all matched"}
    assert len(scores) >= 3
    for quantity in scores.keys() & BIAS.keys():
        assert scores[quantity].stars == 300, quantity
        assert scores[quantity].bias == pytest.approx(BIAS[quantity], rel=2e-3), quantity
    if "mass" in scores:
        joint = np.hypot(stars["e_mass"][:300], ERRORS["mass"])
        assert scores["mass"].z_std == pytest.approx(np.std(0.1 / joint), rel=2e-3)
        assert scores["mass"].within_1_sigma == np.mean(joint > 0.1)
    if name == "andrae-xgboost":  # the precision of the abstract
        joint = np.hypot(stars["e_teff"][:300], 50.0)
        assert scores["teff"].z_std == pytest.approx(np.std(50 / joint), rel=5e-3)


def test_two_catalogs_in_one_file_of_gaia_dr4(published: Values, tmp_path: Path) -> None:
    """ap_xp has masses of GSP-Phot and of FLAME; DR3's recipes do not take it for theirs."""
    run = replace(identity(1, STARS), release=load_release("dr4").to_dict())
    open_run(tmp_path / "run", run)
    table = catalog_table(STARS, seed=4)
    write_chunk(tmp_path / "run", run, 0, run.inputs[0], 0, table)
    path = written(tmp_path / "ap_xp.parquet", ap_xp(published))
    recipes = recognise(column_names(path), (), path)
    assert [one.name for one in recipes] == ["gaia-dr4-flame", "gaia-dr4-gspphot"]
    ids = catalog_identifiers(tmp_path / "run")
    for recipe, labels in zip(recipes, ({"mass", "age"}, {"teff", "mass", "age"}), strict=True):
        found = compare(tmp_path / "run", read_reference(path, recipe, ids))
        assert labels <= {one.quantity for one in found.parts}
    dr3 = written(tmp_path / "dr3.parquet", {"source_id": published["source_id"]}
                  | flame(published))  # fmt: skip
    with pytest.raises(
        ReleaseError, match=r"another Gaia release(.|\n)*Gaia DR4(.|\n)*--crosswalk"
    ):
        crosscheck(tmp_path / "run", tmp_path / "out", References(catalogs=(dr3,)))
    # DR3's identifiers, made into those of DR4 by dr3_neighbourhood, which lacks the first star.
    old = published["source_id"] - 1
    written(dr3, {"source_id": old} | flame(published))
    crosswalk = written(tmp_path / "neighbourhood.parquet", {
        "dr3_source_id": old[1:], "source_id": published["source_id"][1:],
    })  # fmt: skip
    tables = IdentifierTables(crosswalk=crosswalk)
    text, _ = crosscheck(
        tmp_path / "run", tmp_path / "out", References(catalogs=(dr3,), tables=tables)
    )
    assert "320 rows of the reference = 1 not in the crosswalk, 20 not in the catalog, 299" in text


def test_rows_are_counted_on_both_sides(run: Path, published: Values, tmp_path: Path) -> None:
    """Without identifier, not selected, repeated: the row with the smallest error counts."""
    columns = apokasc("RGB", "AgeRGB")(published)
    columns["GaiaDR3"] = columns["GaiaDR3"].copy()
    columns["GaiaDR3"][:3] = 0, -1, 0
    columns["CatTab"] = np.where(np.arange(320) % 10 == 5, "DetectOl", "Gold")
    columns["GaiaDR3"][11] = columns["GaiaDR3"][10]
    columns["Mass"] = columns["Mass"].copy()
    columns["Mass"][11], columns["e_Mass"][11] = 9.0, 5.0
    columns["Mass"][12] = -9999.0
    path = written(tmp_path / "table4.csv", columns)
    found = read_reference(path, load_recipe("apokasc3-rgb"), catalog_identifiers(run))
    assert sum(found.rows.values()) == 320
    assert found.rows["without a Gaia identifier"] == 3
    assert found.rows["not selected"] == 32
    assert found.rows["in the catalog"] == len(found.source_id) + 1
    comparison = compare(run, found)
    stars = comparison.stars
    assert np.nanmax(stars.theirs["mass"].value) < 9.0
    assert (~np.isfinite(stars.theirs["mass"].value)).sum() == 1
    assert len(stars.source_id) == len(found.source_id)


def test_scores_by_flag_and_magnitude(
    run: Path, stars: Values, published: Values, tmp_path: Path
) -> None:
    """A bias of flagged stars alone stands in the row of their flag, one of faint stars in G."""
    flag = max(load_flags().flags, key=lambda f: ((stars["quality_flags"] & f.value) != 0).sum())
    flagged = (stars["quality_flags"] & flag.value) != 0
    faint = stars["phot_g_mean_mag"] > 14.0
    columns = {"source_id": stars["source_id"], "teff": stars["teff"] - 500.0 * flagged,
               "logg": stars["logg"] - 0.3 * faint}  # fmt: skip
    path = written(tmp_path / "table.parquet", columns)
    [recipe] = recognise(list(columns), (), path)
    found = compare(run, read_reference(path, recipe, catalog_identifiers(run)))
    if flagged.sum() >= 20:
        [one] = (x for x in found.of("flag") if (x.quantity, x.sample) == ("teff", flag.name))
        assert one.score.bias == pytest.approx(500.0, rel=1e-3)
    for one in found.of("G"):
        if one.quantity == "logg":
            assert one.score.bias == pytest.approx(0.3 if one.low >= 14 else 0.0, abs=1e-6)
    assert {x.low for x in found.of("G")} >= {12.0, 14.0}


def test_percentiles_that_do_not_enclose_the_value_are_no_percentiles(
    run: Path, published: Values, tmp_path: Path
) -> None:
    columns = starhorse(published)
    columns["mass16"] = columns["mass84"] = np.full(len(published["mass"]), 0.1)
    path = written(tmp_path / "table.parquet", columns)
    found = read_reference(path, load_recipe("starhorse-2021"), catalog_identifiers(run))
    assert any("mass: the percentiles do not enclose" in note for note in found.notes)
    assert np.isnan(found.labels["mass"].error).all()
    assert np.isfinite(found.labels["teff"].error).all()


def test_a_recipe_of_a_few_lines(run: Path, published: Values, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        'title = "Mine"\ncite = "me"\nsource = "me"\nidentifier = ["gaia"]\nrecognised_by = []\n'
        'missing = [99.0]\n[labels.mass]\nvalue = ["m"]\nunit = "solMass"\n'
    )
    masses = np.where(np.arange(320) < 10, 99.0, published["mass"])
    path = written(tmp_path / "t.csv", {"gaia": published["source_id"], "m": masses})
    with pytest.raises(ContractError, match=r"no recipe fits(.|\n)*gaia, m(.|\n)*--recipe"):
        crosscheck(run, tmp_path / "out", References(catalogs=(path,)))
    references = References(catalogs=(path,), recipes=(str(recipe),))
    text, _ = crosscheck(run, tmp_path / "out", references)
    assert "## Mine" in text
    [mass, *_] = (x for x in lines(tmp_path / "out" / "mine.csv") if x["quantity"] == "mass")
    assert int(mass["stars"]) == 290
    assert float(mass["bias"]) == pytest.approx(0.1, rel=1e-3)


def test_recipes_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    good = 'title = "x"\ncite = ""\nsource = ""\nidentifier = ["a"]\nrecognised_by = []\n'
    path = tmp_path / "r.toml"
    for text, words in (
        (good + '[labels.colour]\nvalue = ["c"]\n', "no label that can be compared"),
        (good + '[labels.mass]\nvalue = ["c"]\nscale = "ln"\n', "unknown scale"),
        (good + '[labels.mass]\nvalues = ["c"]\n', "unknown line"),
        (good.replace('title = "x"\n', "") + '[labels.mass]\nvalue = ["c"]\n', "line is missing"),
        ("[", "cannot be read"),
    ):
        path.write_text(text)
        path = path.rename(tmp_path / f"{words.replace(' ', '-')}.toml")
        with pytest.raises(ContractError, match=words):
            load_recipe(path)
    with pytest.raises(ContractError, match="did you mean zgr-2023"):
        load_recipe("zgr-2022")


def test_identifiers_of_others_need_a_link(run: Path, published: Values, tmp_path: Path) -> None:
    path = written(tmp_path / "starflow.fits", starflow(published))
    with pytest.raises(InputError, match=r"StarFlow has no Gaia identifiers(.|\n)*--link"):
        crosscheck(run, tmp_path / "out", References(catalogs=(path,)))
    link = written(tmp_path / "link.csv", {"sdss_id": np.arange(3), "other": np.arange(3)})
    with pytest.raises(InputError, match=r"does not link StarFlow to Gaia(.|\n)*sdss_id"):
        crosscheck(
            run, tmp_path / "out", References(catalogs=(path,), tables=IdentifierTables(link))
        )


def test_columns_are_found_in_any_case_where_that_is_unambiguous() -> None:
    assert find_column(["E_Age", "e_Age", "GAIADR3"], ("e_Age",)) == "e_Age"
    assert find_column(["E_Age", "e_Age"], ("E_AGE",)) is None
    assert find_column(["GAIADR3"], ("none", "GaiaDR3")) == "GAIADR3"
    assert find_column(["a"], ("a[2]",)) == "a[2]"
    assert find_column(["[a/M]"], ("[a/M]",)) == "[a/M]"
    assert set(UNITS) >= {"teff", "logg", "m_h", "mass", "age"}


def test_the_page_shows_pictures_and_loads_nothing(
    run: Path, stars: Values, tmp_path: Path
) -> None:
    few = slice(0, 30)
    columns = {name: stars[name] for name in ("source_id", "teff", "mass", "e_mass", "age")}
    first = written(tmp_path / "one.parquet", columns)
    second = written(tmp_path / "<two>.parquet", {k: v[few] for k, v in columns.items()})
    text, paths = crosscheck(run, tmp_path / "out", References(catalogs=(first, second)))
    page = next(path for path in paths if path.suffix == ".html").read_text()
    assert page.count("<svg") >= 8
    assert "<script" not in page
    assert "<two>" not in page
    assert "default-src &#39;none&#39;" in page
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert "Fewer than 50 good stars are in both catalogs" in page
    assert "matched stars, good and bad" in page
    assert text.count("**Caution.**") == 1
    assert page.count(": magnitude</h3>") == 3  # Teff, mass and age; not of 30 stars
    ages = [line for line in text.splitlines() if line.startswith("| age, relative")]
    assert ages
    assert all(line.endswith(" 11 |") for line in ages)  # the seismic floor
    assert "- 30 rows of the reference = 30 in the catalog" in text
    assert f"- {STARS} stars of this catalog = 30 in the reference + {STARS - 30} not in it" in text


def test_two_tables_of_one_name_have_files_of_their_own(
    run: Path, stars: Values, tmp_path: Path
) -> None:
    paths = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        columns = {"source_id": stars["source_id"][:8], "teff": stars["teff"][:8]}
        paths.append(written(tmp_path / name / "t.csv", columns))
    _, made = crosscheck(run, tmp_path / "out", References(catalogs=tuple(paths)))
    assert {"plain-t.csv", "plain-t-2.csv"} < {path.name for path in made}
