"""Releases with design matrices of their own: canonical coefficients of any release's spectra."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from support import real_stars
from support.releases import IDS, PHOTOMETRY, design_file, own_file, rotated, rotated_design
from support.xp_files import real

from catalogproc.errors import CatalogprocError, ReleaseError
from catalogproc.features import canonical, canonical_correlations
from catalogproc.features.canonical_tables import columns, measured, operators
from catalogproc.features.gaiaxpy_tables import read_tables
from catalogproc.features.input_errors import error_factor
from catalogproc.features.photometry import passbands
from catalogproc.features.release_files import add_release
from catalogproc.release import load_release
from catalogproc.vocabulary import BANDS, load_vocabulary

DR3, DR4 = load_release("dr3"), load_release("dr4")
USED = np.flatnonzero(measured())


def gaiaxpy_files() -> list[Path]:
    """The files of DR3 in the installed GaiaXPy, which is not imported: it changes the process."""
    places = find_spec("gaiaxpy").submodule_search_locations  # type: ignore[union-attr]
    config = Path(places[0]) / "config"  # type: ignore[index]
    return [
        config / "filters" / "XpFilter_v375wiv142r.xml",
        config / "filters" / "XpFilter_GaiaDr3Vega_v375wiv142r.xml",
        config / "correction_tables" / "DIDREQ-465-GaiaDr3Vega-correction-factors.csv",
    ]


def arrays(table, name: str) -> dict[str, np.ndarray]:  # type: ignore[no-untyped-def]
    return {band: np.array(table[f"{band}_{name}"].to_pylist(), np.float64) for band in BANDS}


def joined(values) -> np.ndarray:  # type: ignore[no-untyped-def]
    return np.concatenate([values[band] for band in BANDS], axis=1)


def test_gaiaxpys_files_of_dr3_give_the_operators_of_dr3(tmp_path: Path) -> None:
    made = add_release(gaiaxpy_files(), tmp_path / "mine.toml", "dr3", "mine")
    assert (made.release.name, made.release.bands) == ("mine", DR3.bands)
    assert made.release.design != DR3.design
    assert not [line for line in made.lines() if line.startswith("not")]
    for name, wanted in operators().items():
        found = operators(made.release)[name]
        for part in ("projection", "error_weights", "factor"):
            shipped = getattr(wanted, part)
            atol = 1e-6 * np.abs(shipped).max()
            np.testing.assert_allclose(getattr(found, part), shipped, rtol=0, atol=atol)
    for name, table in read_tables(DR3).items():
        np.testing.assert_allclose(read_tables(made.release)[name], table, rtol=1e-12)
    # The same command again changes nothing; another content is not written over it.
    add_release(gaiaxpy_files(), tmp_path / "mine.toml", "dr3", "mine")
    with pytest.raises(CatalogprocError, match="exists already"):
        add_release(gaiaxpy_files(), tmp_path / "mine.toml", "dr3", "other")


def test_spectra_of_another_release_give_the_same_canonical_coefficients(tmp_path: Path) -> None:
    own = own_file(tmp_path)
    made = add_release([design_file(tmp_path)], tmp_path / "next.toml", str(own))
    assert made.release.basis_function_id("bp") == IDS["bp"]
    table, again = real_stars.bright(), rotated(real_stars.bright(), correlations=True)
    wanted = canonical.from_coefficients(
        arrays(table, "coefficients"), arrays(table, "coefficient_errors")
    )
    found = canonical.from_coefficients(
        arrays(again, "coefficients"), arrays(again, "coefficient_errors"),
        arrays(again, "coefficient_correlations"), release=made.release,
    )  # fmt: skip
    errors = joined(wanted.errors)[:, USED]
    shift = (joined(found.values) - joined(wanted.values))[:, USED] / errors
    assert np.abs(shift).max() < 0.1  # 0.08 of the error of a star of G = 6: 4 directions are lost
    # Their covariances went the same way; without them DR3's mean correlations are carried over.
    factor = canonical_correlations.covariance_factor(
        "both", joined(arrays(table, "coefficient_errors")), {}
    )
    true = np.sqrt(np.square(factor).sum(axis=2))[:, USED]
    np.testing.assert_allclose(joined(found.errors)[:, USED], true, rtol=1e-3)
    assumed = canonical.from_coefficients(
        arrays(again, "coefficients"), arrays(again, "coefficient_errors"), release=made.release
    )
    ratio = joined(assumed.errors)[:, USED] / errors
    assert np.median(ratio) == pytest.approx(1.0, abs=0.1)
    assert ((ratio > 0.6) & (ratio < 1.6)).mean() > 0.95
    for band in BANDS:
        assert np.mean(found.relevant()[band] == wanted.relevant()[band]) > 0.99


@pytest.mark.parametrize("band", BANDS)
def test_one_band_has_an_operator_of_its_own_in_each_release(tmp_path: Path, band: str) -> None:
    made = add_release([design_file(tmp_path)], tmp_path / "next.toml").release
    found = []
    for table, release in (
        (real_stars.faint().slice(0, 50), DR3),
        (rotated(real_stars.faint().slice(0, 50)), made),
    ):
        alone = {
            name: values if name == band else np.full_like(values, np.nan)
            for name, values in arrays(table, "coefficients").items()
        }
        errors = arrays(table, "coefficient_errors")
        found.append(canonical.from_coefficients(alone, errors, release=release))
    wanted, again = found
    shift = (again.values[band] - wanted.values[band]) / wanted.errors[band]
    # The four directions that the made-up release lacks are seen a little by BP alone.
    assert np.sqrt(np.mean(np.square(shift[:, measured()[columns(band)]]))) < 0.1


def test_what_does_not_fit_is_refused_with_words(tmp_path: Path) -> None:
    own, made_up = str(own_file(tmp_path)), rotated_design()

    def add(*files: Path, like: str = own) -> None:
        add_release(files, tmp_path / "new.toml", like)

    coarse = {name: values[::2] for name, values in made_up.items()}
    with pytest.raises(ReleaseError, match=r"another sampling(.|\n)*343 wav(.|\n)*172 wavelengths"):
        add(design_file(tmp_path, **coarse))
    with pytest.raises(ReleaseError, match=r"51 BP(.|\n)*found: 55 BP, 55 RP"):
        add(*gaiaxpy_files())
    with pytest.raises(ReleaseError, match="no design matrices of flux"):
        add(*gaiaxpy_files()[1:], like="dr3")
    with pytest.raises(ReleaseError, match="wavelengths once"):
        add(design_file(tmp_path), *gaiaxpy_files()[:1])
    with pytest.raises(ReleaseError, match="not finite"):
        add(design_file(tmp_path, merge_bp=np.full(343, np.nan)))
    (tmp_path / "a.xml").write_text("<config><XpMerge/></config>")
    with pytest.raises(ReleaseError, match=r"cannot be read(.|\n)*sampleMeanWavelengths"):
        add(tmp_path / "a.xml")
    with pytest.raises(ReleaseError, match=r"no file of design(.|\n)*XpFilter_<models>\.xml"):
        add(tmp_path / "a.txt")
    assert not (tmp_path / "new.toml").exists()
    assert not (tmp_path / "new.npz").exists()


def test_what_the_files_did_not_have_is_named_when_it_is_needed(tmp_path: Path) -> None:
    made = add_release([design_file(tmp_path)], tmp_path / "next.toml")
    assert made.release.name == "dr4"
    assert [line for line in made.lines() if "not given" in line][1].startswith(
        "not given: factors on errors"
    )
    assert made.release.unknown_lines().keys() == DR4.unknown_lines().keys() - {
        "[design] file, sha256"
    }
    with pytest.raises(ReleaseError, match=r"its pass-bands(.|\n)*release add --design"):
        passbands(made.release)
    with pytest.raises(ReleaseError, match=r"inflate_errors(.|\n)*release add --design"):
        error_factor("bp", 15.0, made.release)


def test_a_canonical_model_reads_a_release_with_a_design_alone(tmp_path: Path) -> None:
    vocabulary = load_vocabulary(basis="canonical")
    made = add_release([design_file(tmp_path)], tmp_path / "next.toml").release
    read = vocabulary.for_release(made)
    assert read.spectrum_length("bp") == 51
    assert read.coefficients("bp") == 55
    assert (read.basis_release, read.data_release) == (DR3, made)
    with pytest.raises(ReleaseError, match=r"without its design(.|\n)*release add(.|\n)*bridge"):
        vocabulary.for_release(DR4)
    with pytest.raises(ReleaseError, match="reads spectra of another release"):
        load_vocabulary().for_release(made)


def test_the_g_flux_is_that_of_the_models_release(tmp_path: Path) -> None:
    import pyarrow as pa

    from catalogproc.features.tokens import tokens
    from catalogproc.job import Job

    like = own_file(tmp_path, PHOTOMETRY)
    made = add_release([design_file(tmp_path)], tmp_path / "next.toml", str(like)).release
    vocabulary, table = load_vocabulary(basis="canonical"), real(20)
    job = Job("test", inputs=("bprp",), coefficients=30)
    wanted = tokens(table, None, vocabulary, job)
    spectra = rotated(table)
    found = tokens(spectra, None, vocabulary.for_release(made), job)
    np.testing.assert_allclose(found.g_mag, wanted.g_mag, atol=1e-5)
    both = np.isfinite(found.values) & np.isfinite(wanted.values)
    assert both.sum() > 0.97 * np.isfinite(wanted.values).sum()  # errors decide on the last ones
    np.testing.assert_allclose(found.values[both], wanted.values[both], rtol=1e-3, atol=2e-6)
    # A flux in electrons per second of the release becomes one of DR3.
    zero_point = made.magnitude("G").zero_point
    given = {
        "phot_g_mean_flux": 10 ** (0.4 * (zero_point - wanted.g_mag)),
        "phot_bp_mean_mag": wanted.g_mag + 0.5, "phot_rp_mean_mag": wanted.g_mag - 0.5,
    }  # fmt: skip
    beside = pa.table({"source_id": table["source_id"], **given})
    again = tokens(spectra, beside, vocabulary.for_release(made), job)
    np.testing.assert_allclose(again.g_flux, wanted.g_flux, rtol=1e-6)
    np.testing.assert_allclose(again.g_mag, wanted.g_mag, atol=1e-6)
    # Canonical coefficients among them are refused, and sampled flux is.
    marked = spectra.append_column("basis_id", pa.array([canonical.BASIS_ID] * 20))
    with pytest.raises(ReleaseError, match=r"canonical coefficients are read as(.|\n)*dr3"):
        tokens(marked, None, vocabulary.for_release(made), job)
    assert replace(made, name="x").hash != made.hash
