"""Spectra that the model makes: in GaiaXPy's own hands, on every scale, and as physics has them."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import real_stars
from support.paths import EXAMPLES
from support.simulated import simulator
from typer.testing import CliRunner

from catalogproc.cli.main import app
from catalogproc.datasets.star_reader import RowCount, StarFiles, all_inputs_job, read_stars
from catalogproc.datasets.test_sets import Simulated, simulated
from catalogproc.errors import BundleError, CountError, JobError, Refusal
from catalogproc.features.extinction import TRUE_PER_SFD
from catalogproc.features.flux_calibration import calibration
from catalogproc.features.photometry import passbands, synthetic_photometry
from catalogproc.network.bundle import load_bundle
from catalogproc.network.predictor import Predictor
from catalogproc.network.star_tokens import StarTokens
from catalogproc.release import load_release
from catalogproc.spectra.correlations import correlations
from catalogproc.spectra.files import check_name, write_spectra
from catalogproc.spectra.generate import TENSION, SpectraRequest, make_spectra
from catalogproc.spectra.generated import Spectra, apparent_magnitude, generate_spectra
from catalogproc.spectra.inpaint import (
    InpaintRequest,
    SpectraOutput,
    complete,
    inpaint,
    shown_tokens,
)
from catalogproc.spectra.inpaint_wavelengths import fill_wavelengths, kalman_update
from catalogproc.spectra.label_inputs import isochrone, label_tension, one_star
from catalogproc.vocabulary import BANDS

exact = StarTokens.exact
DR3 = load_release("dr3")

FILES = sorted(EXAMPLES.glob("*.parquet"))


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(load_bundle("default"))


def giants(predictor: Predictor, **labels: object) -> np.ndarray:
    """Tokens (N, V) of stars of which labels are known, the given ones over a plain giant's."""
    vocabulary = predictor.bundle.vocabulary
    plain = {"teff": 4700.0, "logg": 2.5, "m_h": 0.0, "logebv": np.log(0.03)}
    known = {name: np.atleast_1d(value) for name, value in (plain | labels).items()}
    size = max(len(value) for value in known.values())
    values = np.full((size, len(vocabulary)), np.nan)
    for name, value in known.items():
        values[:, vocabulary.column(name)] = value
    return values


def frame(path: Path):
    """A written file as GaiaXPy takes it."""
    table = pq.read_table(path).to_pandas()
    for name in table.columns:
        if table[name].dtype == object:
            table[name] = [np.array(x, dtype=float) for x in table[name]]
    return table


def test_gaiaxpy_makes_the_same_flux_and_errors_of_it(predictor: Predictor, tmp_path: Path) -> None:
    spectra = generate_spectra(predictor, exact(giants(predictor, teff=np.array([4300.0, 4900.0]))))
    spectra = spectra.at_magnitude(np.array([11.0, 13.0]))
    path = tmp_path / "made.parquet"
    write_spectra(path, spectra, np.array([7, 8]), {"teff": np.array([4300.0, 4900.0])}, {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made, wavelength = real_stars.gaiaxpy().calibrate(frame(path), save_file=False)
    sampled = spectra.sampled()
    np.testing.assert_allclose(wavelength, sampled.wavelength)
    flux, error = (np.stack(made[name].to_numpy()) for name in ("flux", "flux_error"))
    np.testing.assert_allclose(flux, sampled.flux, rtol=1e-5, atol=1e-5 * flux.max())
    np.testing.assert_allclose(error, sampled.error, rtol=1e-4)


def test_gaiaxpy_reads_the_ecsv(predictor: Predictor, tmp_path: Path) -> None:
    from gaiaxpy.file_parser.parse_internal_continuous import InternalContinuousParser

    spectra = generate_spectra(predictor, exact(giants(predictor)))
    path = tmp_path / "made.ecsv"
    write_spectra(path, spectra, np.array([2**60 + 1]), {}, {"model": "x"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read, _ = InternalContinuousParser().parse_file(str(path), disable_info=True)
    assert int(read["source_id"][0]) == 2**60 + 1
    for band in BANDS:
        np.testing.assert_allclose(
            read[f"{band}_coefficients"][0], spectra.coefficients[band][0], rtol=1e-12
        )


def test_gaiaxpy_takes_the_correlations(predictor: Predictor, tmp_path: Path) -> None:
    spectra = generate_spectra(predictor, exact(giants(predictor)))
    spectra = replace(spectra, correlations=correlations(predictor, exact(giants(predictor))))
    path = tmp_path / "made.parquet"
    write_spectra(path, spectra, np.array([7]), {}, {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made, wavelength = real_stars.gaiaxpy().calibrate(frame(path), save_file=False)
    ours, theirs = spectra.sampled().error[0], np.asarray(made["flux_error"][0])
    one = (wavelength < 632) | (wavelength > 645)  # where one band alone makes the flux
    np.testing.assert_allclose(ours[one], theirs[one], rtol=1e-4)
    alone = generate_spectra(predictor, exact(giants(predictor))).sampled().error[0]
    assert np.median(np.abs(ours / alone - 1)) > 0.05  # as independent, they are others


def colour_error(spectra: Spectra) -> np.ndarray:
    """The error of BP - RP (N,) that the coefficients' errors make, to first order."""
    bands = passbands(DR3)
    weights = {
        name: np.concatenate([bands.weights[band][bands.names.index(name)] for band in BANDS])
        for name in ("BP", "RP")
    }
    values, errors = (
        np.concatenate([part[band] for band in BANDS], axis=1)
        for part in (spectra.coefficients, spectra.errors)
    )
    bp, rp = (w / (values @ w)[:, None] for w in weights.values())
    slope = 2.5 / np.log(10) * (bp - rp) * errors
    if spectra.correlations is None:
        return np.sqrt(np.square(slope).sum(axis=1))
    return np.sqrt(np.einsum("ni,nij,nj->n", slope, spectra.correlations, slope))


def test_the_error_of_a_colour_is_what_the_model_says_of_the_colour(predictor: Predictor) -> None:
    """Two routes to sigma(BP - RP): the model asked for it, and the coefficients' covariance."""
    values = giants(predictor, teff=np.array([4300.0, 4700.0, 5000.0]), logg=[1.8, 2.5, 3.0])
    values[:, predictor.bundle.vocabulary.column("logebv")] = np.nan  # dust is what moves it
    asked = predictor.predict(exact(values), ["bprp"]).sigma[:, 0]
    spectra = generate_spectra(predictor, exact(values))
    together = replace(spectra, correlations=correlations(predictor, exact(values)))
    assert np.abs(np.log(colour_error(together) / asked)).max() < 0.4
    # As independent errors they would be far too small.
    assert (colour_error(spectra) < 0.75 * asked).all()


def test_correlations_are_correlations_and_a_stars_own(predictor: Predictor) -> None:
    values = giants(predictor, teff=np.array([4300.0, 4900.0]))
    matrix = correlations(predictor, exact(values), 20).astype(float)
    np.testing.assert_allclose(matrix, matrix.transpose(0, 2, 1), atol=1e-6)
    np.testing.assert_allclose(np.diagonal(matrix, axis1=1, axis2=2), 1.0)
    assert np.linalg.eigvalsh(matrix).min() > -1e-5
    np.testing.assert_allclose(
        correlations(predictor, exact(values[1:]), 20)[0], matrix[1], atol=2e-3
    )
    with pytest.raises(JobError, match=r"correlations need draws(.|\n)*or more(.|\n)*found: 3"):
        correlations(predictor, exact(values), 3)


def test_labels_that_do_not_go_together_are_told(predictor: Predictor, tmp_path: Path) -> None:
    # Three solar masses live for 0.4 Gyr; the first is a star of PARSEC's.
    ages = np.log10([5e9, 10e9])
    strange = giants(predictor, teff=4582.0, mass=np.array([1.25, 3.0]), log_age=ages)
    far = np.nanmax(np.abs(label_tension(predictor, exact(strange))[2]), axis=1)
    assert far[0] < TENSION
    assert far[1] > 5.0
    labels = {"teff": 4700.0, "logg": 2.5, "mass": 3.0, "age": 10.0}
    output = tmp_path / "x.parquet"
    said = make_spectra(SpectraRequest(labels, output=output), predictor.bundle, "cpu")
    assert any("this star is unlike any training star: mass = 3" in x for x in said)
    assert pq.read_table(output)["label_tension"][0].as_py() > 5
    stars = simulated(Simulated(2_000, 5), predictor.bundle.vocabulary)
    labels = predictor.bundle.vocabulary.columns(["teff", "logg", "m_h", "mass", "log_age"])
    values = np.full_like(stars.values, np.nan)
    values[:, labels] = stars.truth[:, labels]
    off = np.nan_to_num(label_tension(predictor, exact(values))[2])
    assert (np.abs(off) > TENSION).any(axis=1).mean() < 0.05


def test_what_is_made_is_what_a_run_reads(predictor: Predictor, tmp_path: Path) -> None:
    """Labels to spectra to labels: the model agrees with itself, within its errors."""
    output = tmp_path / "made.parquet"
    wanted = SpectraRequest({}, isochrone="5,-0.2", output=output, distance=1.0, draws=0)
    make_spectra(wanted, predictor.bundle, "cpu")
    vocabulary = predictor.bundle.vocabulary
    good, made = next(read_stars(StarFiles([output]), vocabulary, all_inputs_job(vocabulary)))
    table = pq.read_table(output)
    assert len(good) == table.num_rows > 20
    answer = predictor.predict(made.network_inputs, ["teff", "m_h"])
    off = np.abs(answer.mean[:, 0] - table["teff"].to_numpy()) / answer.sigma[:, 0]
    assert np.median(off) < 1.5


def test_a_spectrum_of_a_magnitude_has_it(predictor: Predictor) -> None:
    spectra = generate_spectra(predictor, exact(giants(predictor, teff=np.array([4400.0, 4800.0]))))
    scaled = spectra.at_magnitude(np.array([12.0, 15.5]))
    seen = synthetic_photometry(scaled.coefficients["bp"], scaled.coefficients["rp"], DR3)
    # The coefficients come one by one, each with its error; their sum is G all the same.
    np.testing.assert_allclose(seen.g, [12.0, 15.5], atol=0.04)


def test_ten_times_the_distance_is_five_magnitudes(predictor: Predictor) -> None:
    values = giants(predictor)
    near, error = apparent_magnitude(predictor, exact(values), 0.01)
    far, _ = apparent_magnitude(predictor, exact(values), 0.1)
    assert far - near == pytest.approx(5.0)
    assert 0 < error < 1.5
    given = giants(predictor, g_fakemag=100.0)  # M_G = 0
    zero, none = apparent_magnitude(predictor, exact(given), 0.01)
    assert zero == pytest.approx(0.0, abs=1e-12)
    assert none == 0


def test_a_heavier_star_of_the_same_gravity_is_brighter(predictor: Predictor) -> None:
    # L ∝ M T^4 / g: 2.5 log10(2) = 0.75 mag from 0.9 to 1.8 Msun.
    values = giants(predictor, mass=np.array([0.9, 1.8]))
    magnitude, _ = apparent_magnitude(predictor, exact(values), 0.01)
    assert 0.3 < magnitude[0] - magnitude[1] < 1.2


def test_cooler_is_redder_and_dust_reddens(predictor: Predictor) -> None:
    def colour(values: np.ndarray) -> np.ndarray:
        made = generate_spectra(predictor, exact(values)).at_magnitude(np.full(len(values), 13.0))
        seen = synthetic_photometry(made.coefficients["bp"], made.coefficients["rp"], DR3)
        return seen.bp - seen.rp

    stars = isochrone(5.0, 0.0)
    branch = {name: stars[name].to_numpy()[4::7] for name in ("teff", "logg", "mass")}
    by_teff = colour(giants(predictor, log_age=np.log10(5e9), **branch))
    assert (np.diff(by_teff) > 0).all()
    by_dust = colour(giants(predictor, logebv=np.log([0.02, 0.3, 0.6])))
    assert (np.diff(by_dust) > 0.08).all()


def test_lines_deepen_with_metals(predictor: Predictor) -> None:
    sampled = generate_spectra(
        predictor,
        exact(giants(predictor, teff=4500.0, logg=2.0, m_h=np.array([-1.5, -0.5, 0.3]))),
    ).sampled()

    def depth(line: tuple[float, float], *sides: tuple[float, float]) -> np.ndarray:
        def level(low: float, high: float) -> np.ndarray:
            inside = (sampled.wavelength > low) & (sampled.wavelength < high)
            return sampled.flux[:, inside].mean(axis=1)

        return 1 - level(*line) / np.mean([level(*side) for side in sides], axis=0)

    # Mg b and MgH about 517 nm.
    assert (np.diff(depth((510.0, 522.0), (485.0, 497.0), (535.0, 547.0))) > 0).all()


def test_more_is_known_with_less_error(predictor: Predictor) -> None:
    vocabulary = predictor.bundle.vocabulary
    known = giants(predictor)
    less = np.full_like(known, np.nan)
    less[:, vocabulary.column("teff")] = 4700.0
    errors = [
        generate_spectra(predictor, exact(values)).errors["bp"][0] for values in (less, known)
    ]
    assert np.median(errors[1][:10] / errors[0][:10]) < 0.7


def test_the_red_giant_branch_is_walked_from_below_to_the_tip() -> None:
    stars = isochrone(5.0, -0.2).to_pydict()
    assert len(stars["teff"]) > 20
    assert (np.diff(stars["logg"]) < 0).all()
    assert stars["teff"][0] > 4800 > 4000 > stars["teff"][-1]
    assert {round(age, 9) for age in stars["age"]} == {5.0}
    assert np.ptp(stars["mass"]) < 0.1
    with pytest.raises(JobError, match=r"an age that the isochrones do not have(.|\n)*10\.1"):
        isochrone(50.0, 0.0)
    with pytest.raises(JobError, match=r"\[M/H\](.|\n)*-2\.18 to 0\.5 dex(.|\n)*1\.0"):
        isochrone(5.0, 1.0)


def test_generate_from_the_command_line(tmp_path: Path) -> None:
    run = CliRunner().invoke
    made = {name: tmp_path / name for name in ("a.parquet", "f.ecsv", "p.png")}
    words = ["generate", "--teff", "4700", "--logg", "2.5", "--m-h", "0", "--age", "5",
             "--known", "bprp=1.2", "--absolute", "--output", str(made["a.parquet"]),
             "--flux", str(made["f.ecsv"]), "--plot", str(made["p.png"])]  # fmt: skip
    result = run(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "made from teff, logg, m_h, age, bprp; stars at 10 pc" in result.output
    table = pq.read_table(made["a.parquet"])
    assert table["teff"].to_pylist() == [4700]
    assert len(table["bp_coefficients"][0]) == 55
    from astropy.table import Table

    flux = Table.read(made["f.ecsv"])
    assert len(flux) == len(calibration(DR3).wavelengths)
    assert flux["flux"].unit == "W m-2 nm-1"
    assert made["p.png"].read_bytes().startswith(b"\x89PNG")


def test_a_table_and_an_isochrone_of_stars(tmp_path: Path) -> None:
    bundle = load_bundle("default")
    path = tmp_path / "stars.csv"
    path.write_text("source_id,teff,logg,note\n9007199254740993,4500,2.1,a\n12,5000,,b\n")
    output = tmp_path / "made.parquet"
    said = make_spectra(SpectraRequest({"m_h": -0.3}, stars=path, output=output), bundle, "cpu")
    assert said[0].startswith("2 spectra written to ")
    assert said[1] == "made from teff, logg, m_h; over the G flux"
    table = pq.read_table(output)
    assert table["source_id"].to_pylist() == [9007199254740993, 12]
    assert table["m_h"].to_numpy() == pytest.approx([-0.3, -0.3])
    make_spectra(
        SpectraRequest({"ebv": 0.1}, isochrone="8,-0.5", output=output, distance=2.0), bundle, "cpu"
    )
    g = pq.read_table(output)["phot_g_mean_mag"].to_numpy()
    assert g[0] > g[-1]  # the tip is brighter than the foot


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (SpectraRequest({"teff": 4700.0}), r"no file to write(.|\n)*--output, --flux or --plot"),
        (
            SpectraRequest({}, output=Path("x.parquet")),
            r"no stars are named(.|\n)*--isochrone AGE,M_H",
        ),
        (
            SpectraRequest({"teff": 1.0}, output=Path("x.fits")),
            r"\.parquet \| \.ecsv(.|\n)*x\.fits",
        ),
        (SpectraRequest({"teff": 1.0}, plot=Path("x.jpg")), r"a picture is a PNG(.|\n)*x\.jpg"),
        (SpectraRequest({}, isochrone="five", output=Path("x.ecsv")), r"AGE,M_H(.|\n)*five"),
        (
            SpectraRequest({"age": 2.0}, isochrone="5,0", output=Path("x.ecsv")),
            r"already(.|\n)*age",
        ),
        (
            SpectraRequest({"teff": 1.0}, known=("a:1",), output=Path("x.ecsv")),
            r"NAME=VALUE(.|\n)*a:1",
        ),
        (
            SpectraRequest({"height": 1.0}, output=Path("x.ecsv")),
            r"no column that the model can read",
        ),
        (
            SpectraRequest({"teff": 1.0}, distance=1.0, absolute=True, output=Path("x.ecsv")),
            "two scales",
        ),
        (
            SpectraRequest({"teff": 1.0}, distance=-1.0, output=Path("x.ecsv")),
            r"above 0 kpc(.|\n)*-1",
        ),
    ],
)
def test_what_cannot_be_made_is_refused(wanted: SpectraRequest, words: str) -> None:
    with pytest.raises(Refusal, match=words):
        make_spectra(wanted, load_bundle("default"), "cpu")
    assert not Path("x.ecsv").exists()


def test_a_model_without_spectra_is_refused(predictor: Predictor) -> None:
    poor = Predictor(replace(predictor.bundle, requestable=("teff", "bp0")))
    with pytest.raises(BundleError, match=r"wanted: 105 coefficients(.|\n)*found: 1 of them"):
        generate_spectra(poor, giants(predictor))


# ---- inpainting


def test_bp_from_rp_is_far_better_than_the_mean_spectrum(predictor: Predictor) -> None:
    stars = simulated(Simulated(2_000, 77), predictor.bundle.vocabulary)
    vocabulary = predictor.bundle.vocabulary
    for source, target in (("rp", "bp"), ("bp", "rp")):
        shown = InpaintRequest.of(source, target).read(stars.inputs, vocabulary)
        made = generate_spectra(predictor, shown).coefficients[target]
        at = vocabulary.coefficient_columns(target)[:5]
        truth = stars.values[:, at]
        off, spread = (
            np.sqrt(np.nanmean(np.square(x), axis=0))
            for x in (made[:, :5] - truth, truth - np.nanmean(truth, axis=0))
        )
        # The first coefficients hold nearly all of the flux.
        assert np.median(spread / off) > 2.5, target


def test_only_the_part_that_is_read_is_read(predictor: Predictor) -> None:
    vocabulary = predictor.bundle.vocabulary
    values = np.ones((1, len(vocabulary)))
    bp, rp = (vocabulary.coefficient_columns(band) for band in BANDS)
    shown = InpaintRequest.of("rp", "bp").read(exact(values), vocabulary).present[0]
    assert shown[rp].all()
    assert shown.sum() == len(rp)
    shown = InpaintRequest.of("all", "336-640").read(exact(values), vocabulary).present[0]
    assert not shown[bp].any()
    assert not shown[vocabulary.column("bprp")]
    assert shown[vocabulary.column("jh")]
    assert InpaintRequest.of("640-1020", "bp") == InpaintRequest("rp", "bp")


def test_wavelengths_are_bands_or_what_is_left_of_them(predictor: Predictor) -> None:
    assert InpaintRequest.of("all", "560-600").words == "from 336-560 and 600-1020 nm"
    assert InpaintRequest.of("all", "336-500").read_nm == ((500.0, 1020.0),)
    assert InpaintRequest.of("all", "560-600").read_nm == ((336.0, 560.0), (600.0, 1020.0))
    assert InpaintRequest.of("bp", "500-700").read_nm == ((336.0, 500.0),)
    assert InpaintRequest.of("400-500", "missing").read_nm == ((400.0, 500.0),)
    vocabulary = predictor.bundle.vocabulary
    shown = InpaintRequest.of("all", "336-500").read(
        exact(np.ones((1, len(vocabulary)))), vocabulary
    )
    given = {vocabulary.names[i] for i in np.flatnonzero(shown.present[0])}
    # A gap in BP leaves none of its coefficients, and no colour or label made of its flux.
    assert given == {*(f"rp{i}" for i in range(55)), "jh", "jk"}


def test_a_measurement_corrects_a_gaussian_as_bayes_does() -> None:
    random = np.random.default_rng(3)
    root, design = random.normal(size=(12, 12)), random.normal(size=(5, 12))
    prior, mean, value = root @ root.T, random.normal(size=12), random.normal(size=12)
    error = random.uniform(0.5, 2.0, 12)
    made, after = kalman_update(mean, prior, design, value, error)
    flux = design @ value
    noise = (design * error**2) @ design.T + np.eye(5) * (1e-4 * np.abs(flux).max()) ** 2
    # The other route: precisions add.
    precision = np.linalg.inv(prior) + design.T @ np.linalg.solve(noise, design)
    pull = np.linalg.solve(prior, mean) + design.T @ np.linalg.solve(noise, flux)
    np.testing.assert_allclose(after, np.linalg.inv(precision), rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(made, np.linalg.solve(precision, pull), rtol=1e-4)


def test_a_gap_is_filled_as_well_as_its_errors_say(predictor: Predictor) -> None:
    """560 to 600 nm from all the rest, against spectra without noise."""
    stars, seed = 24, 77
    vocabulary, bases = predictor.bundle.vocabulary, calibration(DR3)
    seen = simulated(Simulated(stars, seed), vocabulary)
    drawn = simulator().draw(stars, seed)
    names = ("m_h", "teff", "logg", "log_l", "distance", "ebv", "r_v")
    truth, gaia, _ = simulator().spectra(
        *(TRUE_PER_SFD * drawn[n] if n == "ebv" else drawn[n] for n in names)
    )
    scaled = truth.double().numpy() * 10 ** (
        0.4 * (gaia[:, :1].double().numpy() - DR3.magnitude("G").zero_point)
    )
    true = bases.flux({"bp": scaled[:, :55], "rp": scaled[:, 55:]})
    question = InpaintRequest.of("all", "560-600")
    shown = question.read(seen.inputs, vocabulary)
    read = SimpleNamespace(
        values=seen.values,
        errors=seen.errors,
        g_mag=drawn["g_mag"].double().numpy(),
        release=DR3,
    )
    spectra, known = fill_wavelengths(predictor, shown, read, question.read_nm)
    assert known.all()
    filled, plain = spectra.sampled(), generate_spectra(predictor, shown).sampled()
    asked = (bases.wavelengths >= 560) & (bases.wavelengths <= 600)

    def off(flux: np.ndarray) -> float:
        return float(np.median(np.sqrt(np.mean(np.square(flux - true)[:, asked], axis=1))))

    # The flux on both sides tells more than the other band alone, and much more than the mean.
    assert off(filled.flux) < off(plain.flux)
    assert off(filled.flux) < off(np.median(true, axis=0)) / 3
    z = ((filled.flux - true) / filled.error)[:, asked]
    assert 0.5 < (np.abs(z) < 1).mean() < 0.85
    assert (np.abs(z) < 2).mean() > 0.8
    # What was read whole stands.
    rp = vocabulary.coefficient_columns("rp")
    there = np.isfinite(seen.values[:, rp])
    np.testing.assert_allclose(spectra.coefficients["rp"][there], seen.values[:, rp][there])


def test_rows_are_counted_on_both_sides(predictor: Predictor, tmp_path: Path) -> None:
    table = pq.read_table(FILES[0]).slice(0, 12)
    twice = pa.concat_tables([table, table.slice(0, 2)])
    pq.write_table(twice, tmp_path / "in.parquet")
    files, output = StarFiles([tmp_path / "in.parquet"]), tmp_path / "out.parquet"
    plot, question = tmp_path / "few.png", InpaintRequest.of("rp", "bp")
    done = inpaint(files, question, SpectraOutput(output, plot), predictor)
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert (done.read, done.written, done.rejected, done.without) == (14, 12, 2, 0)
    assert "14 spectra read, 12 written" in done.lines()[0]
    assert "G magnitude of 12 stars computed from both bands" in done.lines()[1]
    assert "2 rows left out" in done.lines()[2]
    assert pq.read_metadata(output).num_rows == 12
    with pytest.raises(CountError, match=r"wanted: 14(.|\n)*11 written, 0 left out, 2 rejected"):
        RowCount(14, 2).check(11)


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("rp", "rp", r"the part to predict is the part that is read(.|\n)*--to bp"),
        ("500-600", "500-600", r"the part to predict is the part that is read"),
        ("500-600", "400-800", r"nothing is left to be read(.|\n)*--to 400-800"),
        ("rp", "blue", r"bp, rp, all, missing, or wavelengths(.|\n)*blue"),
        ("missing", "bp", r"what is missing cannot be read"),
        ("rp", "200-400", r"as 336-500, within 336 to 1020(.|\n)*200-400"),
    ],
)
def test_questions_without_sense_are_refused(source: str, target: str, words: str) -> None:
    with pytest.raises(JobError, match=words):
        InpaintRequest.of(source, target)


def test_what_was_measured_stands_and_what_was_missing_is_filled(predictor: Predictor) -> None:
    vocabulary = predictor.bundle.vocabulary
    good, made = next(read_stars(StarFiles(FILES[:1]), vocabulary, all_inputs_job(vocabulary)))
    request = InpaintRequest.of("all", "missing")
    whole = complete(predictor, made, shown_tokens(made, good, request, vocabulary), request)
    for band in BANDS:
        at = vocabulary.coefficient_columns(band)
        measured = np.isfinite(made.values[:, at])
        read = made.values[:, at] * made.g_flux[:, None]
        np.testing.assert_allclose(whole.coefficients[band][measured], read[measured], rtol=1e-6)
        assert np.isfinite(whole.coefficients[band]).all()
        # What is filled in is small beside the noise that was left out.
        known = np.isin(vocabulary.names, predictor.bundle.requestable)[at]
        assert (whole.errors[band][:, known] > 0).all()


def test_a_star_of_one_band_gets_the_other(predictor: Predictor, tmp_path: Path) -> None:
    output = tmp_path / "whole.parquet"
    files, request = StarFiles([real_stars.ONE_BAND]), InpaintRequest.of("all", "missing")
    done = inpaint(files, request, SpectraOutput(output), predictor)
    # Without BP there is no G of its own, and no auxiliary was given: nothing has a scale.
    assert done.without >= 1
    assert "no G magnitude" in done.lines()[1]
    ids = pq.read_table(realstars_table(tmp_path))["source_id"].to_pylist()
    auxiliary = tmp_path / "g.parquet"
    bright = pa.table({"source_id": sorted(ids), "phot_g_mean_mag": [15.0] * len(ids)})
    pq.write_table(bright, auxiliary)
    files = StarFiles([real_stars.ONE_BAND], [auxiliary])
    done = inpaint(files, request, SpectraOutput(output), predictor)
    assert done.without == 0
    table = pq.read_table(output)
    assert table["bp_coefficients"].null_count == 0
    assert np.isfinite(np.array(table["bp_coefficients"].to_pylist())).all()


def realstars_table(folder: Path) -> Path:
    """The stars of the file with one band, as Parquet."""
    from catalogproc.readers.xp import read_spectra

    path = folder / "one_band.parquet"
    pq.write_table(pa.Table.from_batches(list(read_spectra(real_stars.ONE_BAND))), path)
    return path


def test_inpaint_and_embed_from_the_command_line(tmp_path: Path) -> None:
    run = CliRunner().invoke
    whole, vectors = tmp_path / "whole.parquet", tmp_path / "vectors.parquet"
    result = run(app, ["inpaint", "--input", str(FILES[0]), "--from", "rp", "--to", "bp",
                       "--output", str(whole)])  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "500 spectra read, 500 written to" in result.output
    assert pq.read_metadata(whole).num_rows == 500
    result = run(app, ["embed", "--input", str(FILES[0]), "--output", str(vectors)])
    assert result.exit_code == 0, result.output
    table = pq.read_table(vectors)
    bundle = load_bundle("default")
    matrix = np.array(table["embedding"].to_pylist())
    assert matrix.shape == (500, bundle.shape.width)
    first = pq.read_table(FILES[0])["source_id"].to_pylist()
    assert table["source_id"].to_pylist() == first
    # Neighbours among the vectors are alike in what was not asked: BP-RP of the spectrum.
    rows = pq.read_table(FILES[0])
    bp, rp = (np.array(rows[f"{band}_coefficients"].to_pylist()) for band in BANDS)
    seen = synthetic_photometry(bp, rp, DR3)
    colour = seen.bp - seen.rp
    full = table["n_tokens"].to_numpy() > 20
    picked, shades = matrix[full], colour[full]
    apart = np.linalg.norm(picked[:, None] - picked[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    near = np.abs(shades - shades[apart.argmin(axis=1)])
    assert np.median(near) < 0.6 * np.median(np.abs(shades - np.median(shades)))


def test_names_of_files_are_checked_before_work() -> None:
    check_name(Path("a.PARQUET"), "--output")
    with pytest.raises(JobError, match=r"a\.csv"):
        check_name(Path("a.csv"), "--output")
    assert one_star({"teff": 4700.0}, ["jh = 0.6"]).to_pydict() == {"teff": [4700.0], "jh": [0.6]}


def test_a_name_that_is_no_token_is_refused_not_ignored(
    predictor: Predictor, tmp_path: Path
) -> None:
    wanted = SpectraRequest(labels={"teff": 4800.0}, known=("mas=1.2",), plot=tmp_path / "x.png")
    with pytest.raises(JobError, match="no such token") as caught:
        make_spectra(wanted, predictor.bundle, "cpu")
    assert caught.value.advice == "did you mean mass?"
    assert not (tmp_path / "x.png").exists()
