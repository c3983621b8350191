"""Gaia releases as data."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from support.paths import ROOT

from catalogproc.contract import load_contract
from catalogproc.errors import ReleaseError
from catalogproc.io.hashes import file_sha256
from catalogproc.readers.formats import open_table
from catalogproc.release import Release, load_release, shipped_releases

ARCHIVE = Path(__file__).parent / "data" / "archive_formats" / "XP_CONTINUOUS_RAW.fits"


def own(tmp_path: Path, text: str) -> Path:
    """A release file of the user's own."""
    path = tmp_path / "own.toml"
    path.write_text('version = 1\nname = "own"\nlike = "dr4"\n' + text)
    return path


def test_both_releases_ship() -> None:
    assert shipped_releases() == ("dr3", "dr4")
    dr3, dr4 = load_release(), load_release("dr4")
    assert (dr3.title, dr3.epoch, dr4.title, dr4.epoch) == (
        "Gaia DR3", "J2016.0", "Gaia DR4", "J2017.5",
    )  # fmt: skip
    assert (dr4.coefficients("bp"), dr4.coefficients("rp")) == (51, 55)
    assert dr3.hash != dr4.hash


def test_dr3_is_what_the_archive_publishes() -> None:
    table = open_table(ARCHIVE)
    names = ["bp_basis_function_id", "rp_basis_function_id", "bp_n_parameters", "rp_n_parameters"]
    found = next(iter(table.batches(names, batch_rows=64))).columns.to_pydict()
    release = load_release("dr3")
    for band in ("bp", "rp"):
        assert set(found[f"{band}_basis_function_id"]) == {release.basis_function_id(band)}
        assert set(found[f"{band}_n_parameters"]) == {release.coefficients(band)}


def test_its_design_matrices_are_the_file_that_ships() -> None:
    release = load_release("dr3")
    path = release.design_file()
    assert release.design is not None
    assert file_sha256(path) == release.design.sha256
    with np.load(path) as tables:
        for band in ("bp", "rp"):
            assert tables[f"design_{band}"].shape[1] == release.coefficients(band)


def test_columns_are_those_of_the_contracts() -> None:
    known = {*load_contract("gaia_source").names, *load_contract("xp_continuous").names}
    known |= {"bp_basis_function_id", "rp_basis_function_id", "tentative_parallax_bias"}
    for name in shipped_releases():
        release = load_release(name)
        assert {ours for held in release.columns.values() for ours in held} <= known
        assert set(release.gone.columns) <= known
    dr4 = load_release("dr4")
    assert dr4.column("astrometric_params_solved") == "astrometric_params"
    assert dr4.tables("non_single_star") == ("all_source_flags",)
    assert dr4.column("phot_bp_rp_excess_factor") is None


@pytest.mark.parametrize("name", ["dr3", "dr4"])
def test_a_declaration_makes_the_release_again(name: str) -> None:
    release = load_release(name)
    again = Release.from_dict(release.to_dict())
    assert again == release
    assert again.hash == release.hash


def test_a_users_file_begins_from_one_that_ships(tmp_path: Path) -> None:
    path = own(tmp_path, "[bands.bp]\nbasis_function_id = 901\n[design]\n"
               'file = "d.npz"\nsha256 = "0"\n')  # fmt: skip
    release = load_release(path)
    assert (release.name, release.epoch) == ("own", "J2017.5")
    assert (release.coefficients("bp"), release.basis_function_id("bp")) == (51, 901)
    with pytest.raises(ReleaseError, match=r"d\.npz"):
        release.design_file()
    (tmp_path / "d.npz").touch()
    assert release.design_file() == tmp_path / "d.npz"


def test_what_is_not_known_is_said_with_the_line_to_write() -> None:
    release = load_release("dr4")
    with pytest.raises(ReleaseError, match=r"\[design\]; file = "):
        release.design_file()
    with pytest.raises(ReleaseError, match=r"\[photometry.magnitudes.G\]; zero_point = ") as caught:
        release.magnitude("G")
    assert 'like = "dr4"' in str(caught.value)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("epoc = 'J2016.0'", "did you mean epoch"),
        ("epoch = 2016.0", "epoch: str"),
        ("epoch = '2016'", "J2016.0"),
        ("[bands.bp]\ncoefficients = 0", "coefficients in .bands.bp"),
        ("[bands.ep]\ncoefficients = 5", "bands.rp"),
        ("[bands.bp]\ncoeficients = 5", "did you mean coefficients"),
        ("[design]\nfile = 'a'", r"design.sha256 = …"),
        ("[design]\nfile = '../a.npz'\nsha256 = ''", "a name without a folder"),
        ("[parallax]\nzero_point = 'none'", "lindegren2021 | tentative_parallax_bias"),
        ("[extinction]\nterms = [[1.0, 2]]\nteff = [1, 2]\na_0 = [1, 2]", "extinction.terms"),
        ("version = 2", "cannot be read"),
        ("bands = 3", "bands: a table|wrong type"),
        ("\x00", "cannot be read"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, wanted: str) -> None:
    with pytest.raises(ReleaseError, match=wanted) as caught:
        load_release(own(tmp_path, text))
    assert "own.toml" in str(caught.value)


def test_a_missing_line_and_a_wrong_name_are_named(tmp_path: Path) -> None:
    path = tmp_path / "short.toml"
    path.write_text('version = 1\nname = "x"\n')
    with pytest.raises(ReleaseError, match="title = …, epoch = …, bands = …, parallax = …"):
        load_release(path)
    path.write_text('name = "x"\nlike = "dr5"\n')
    with pytest.raises(ReleaseError, match=r"like = dr3 \| dr4"):
        load_release(path)
    with pytest.raises(ReleaseError, match="a TOML file"):
        load_release("no_such.toml")


def test_the_file_of_the_page_is_a_release(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "releases.md").read_text()
    (block,) = re.findall(r"```toml\n(.*?)```", page, re.S)
    (tmp_path / "own.toml").write_text(block)
    release = load_release(tmp_path / "own.toml")
    assert release.same_spectra(load_release("dr4"))
    assert release.basis_function_id("rp") == 902
    assert release.magnitude("G").zero_point == 25.7
    assert release.extinction_relation().terms == ((0.9, 0, 0),)
    assert release.epoch == "J2017.5"
