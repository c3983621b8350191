"""One star explained: tokens and predictions equal those of the catalog; text and plot."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.image import imread
from support import real_stars
from support.bundles import LABELS, tiny_bundle
from support.paths import ROOT

from catalogproc.contract import load_contract
from catalogproc.errors import BundleError, InputError, JobError, ResumeError, VerifyError
from catalogproc.features.flux_calibration import calibration
from catalogproc.flags import load_flags
from catalogproc.inference.engine import Engine
from catalogproc.inference.process_chunk import process_chunk
from catalogproc.job import Job
from catalogproc.network.star_tokens import StarTokens
from catalogproc.readers import chunks
from catalogproc.readers.gaia_source import open_auxiliary
from catalogproc.release import load_release
from catalogproc.report.explain import Explanation, explain
from catalogproc.report.explain_plot import write_explain_plot
from catalogproc.report.explain_text import attention_shares, explanation_lines
from catalogproc.rundir.manifest import InputFile, RunIdentity, open_run

DR3 = load_release("dr3")

JOB = Job("test", labels=(*LABELS, "alpha_m", "rc_prob"))


class Case:
    """A run of thirty real bright stars, one of them with its coefficients removed."""

    def __init__(self, folder: Path, job: Job = JOB) -> None:
        self.model, self.output = folder / "model", folder / "out"
        self.input, self.auxiliary = folder / "xp.parquet", folder / "gaia.parquet"
        bundle = tiny_bundle(self.model)
        spectra = real_stars.bright()
        self.ids = spectra["source_id"].to_pylist()
        broken = {name: spectra[name].to_pylist() for name in spectra.column_names}
        for name in ("bp_coefficients", "rp_coefficients"):
            broken[name][4] = None
        self.rejected_id = self.ids[4]
        pq.write_table(pa.table(broken, schema=spectra.schema), self.input)
        error = pa.array(np.full(30, 0.03))  # the real ones are not at hand
        source = real_stars.bright_auxiliary().append_column("parallax_error", error)
        pq.write_table(source, self.auxiliary)
        auxiliary = open_auxiliary([self.auxiliary], None)
        run = RunIdentity.of(
            job,
            bundle,
            [InputFile(str(self.input), chunks.fingerprint(self.input), 30)],
            [InputFile(str(self.auxiliary), chunks.fingerprint(self.auxiliary))],
        )
        open_run(self.output, run)
        engine = Engine(bundle, job, run_id=run.run_id)
        for chunk in chunks.cut([self.input], 10):
            process_chunk(engine, chunk, auxiliary, self.output)
        self.bundle = bundle


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("case"))


@pytest.fixture(scope="module")
def star(case: Case) -> Explanation:
    return explain(case.output, case.ids[7], model=case.model)


@pytest.fixture
def copy(case: Case, tmp_path: Path) -> Path:
    shutil.copytree(case.output, tmp_path / "out")
    return tmp_path / "out"


def test_explained_values_are_those_of_the_catalog(case: Case, star: Explanation) -> None:
    table = pa.concat_tables(pq.read_table(p) for p in (case.output / "catalog").glob("*.parquet"))
    place = table["source_id"].to_pylist().index(case.ids[7])
    assert star.row["teff"] == table["teff"][place].as_py()
    assert (star.file, star.row_number, star.duplicates) == (case.input, 7, 0)
    assert star.row["n_tokens"] == len(star.tokens) == len(star.values)
    by_label = {prediction.label: prediction for prediction in star.predictions}
    assert set(by_label) == set(JOB.labels)
    assert by_label["teff"].mean == star.row["teff"]
    assert by_label["teff"].sigma == star.row["e_teff"]
    for prediction in star.predictions:
        np.testing.assert_allclose(prediction.attention.sum(), 1.0, atol=1e-6)
        assert sum(attention_shares(star, prediction).values()) == pytest.approx(1.0)


def test_attention_shows_that_the_luminosity_was_predicted_without_the_parallax(
    tmp_path: Path,
) -> None:
    reading = Case(tmp_path, replace(JOB, inputs=("bprp", "logebv", "g_fakemag")))
    star = explain(reading.output, reading.ids[7], model=reading.model)
    assert "g_fakemag" in star.tokens
    for prediction in star.predictions:
        shares = attention_shares(star, prediction)
        assert sum(shares.values()) == pytest.approx(1.0)
        assert (shares["g_fakemag"] == 0) == (prediction.label == "g_fakemag")
    assert "the predicted luminosity and distance do not depend on it" in "\n".join(
        explanation_lines(star)
    )


def test_tokens_are_those_of_the_spectrum(case: Case, star: Explanation) -> None:
    """By hand: coefficients over the G flux of gaia_source."""
    spectra, source = real_stars.bright(), real_stars.bright_auxiliary()
    assert source["source_id"][7].as_py() == case.ids[7]
    flux = 10 ** (0.4 * (25.6873668671 - source["phot_g_mean_mag"][7].as_py()))
    if "phot_g_mean_flux" in source.column_names:
        flux = source["phot_g_mean_flux"][7].as_py()
    known = dict(zip(star.tokens, star.values, strict=True))
    for name in ("bp0", "bp3", "rp0", "rp7"):
        wanted = spectra[f"{name[:2]}_coefficients"][7].as_py()[int(name[2:])] / flux
        assert known[name] == pytest.approx(wanted, rel=1e-6)
    place = case.bundle.vocabulary.column("bp0")
    scale = case.bundle.standardisation
    wanted = (known["bp0"] - scale.center[place]) / scale.scale[place]
    assert star.standardised[star.tokens.index("bp0")] == pytest.approx(wanted)


def test_spectra_are_the_observed_one_and_the_one_predicted_from_the_labels(
    case: Case, star: Explanation
) -> None:
    spectra = real_stars.bright()
    values = {band: np.array([spectra[f"{band}_coefficients"][7].as_py()]) for band in ("bp", "rp")}
    np.testing.assert_allclose(star.observed.flux, calibration(DR3).flux(values)[0], rtol=1e-6)
    assert (star.observed.error > 0).all()
    # By hand: coefficients predicted from its labels, scaled to the flux of the star.
    from catalogproc.network.predictor import Predictor

    vocabulary = case.bundle.vocabulary
    labels = np.full((1, len(vocabulary)), np.nan)
    for prediction in star.predictions:
        labels[0, vocabulary.column(prediction.label)] = prediction.mean
    names = [f"{band}{k}" for band in ("bp", "rp") for k in range(55)]
    mean = Predictor(case.bundle).predict(StarTokens.exact(labels), names).mean.astype(float)
    flux = star.values[star.tokens.index("bp0")]
    scale = values["bp"][0, 0] / flux
    wanted = calibration(DR3).flux({"bp": mean[:, :55] * scale, "rp": mean[:, 55:] * scale})[0]
    np.testing.assert_allclose(
        star.predicted.flux, wanted, rtol=1e-4, atol=np.abs(wanted).max() * 1e-5
    )


def test_text_has_every_section(case: Case, star: Explanation) -> None:
    text = "\n".join(explanation_lines(star))
    assert text.startswith(f"source_id {case.ids[7]}\n")
    for part in ("row 7", "random 0", "Predictions:", "Attention", "Inputs", "BP and",
                  f"{star.row['phot_g_mean_mag']:.6g} mag", "from 55 BP and 55 RP"):  # fmt: skip
        assert part in text, part
    flags = load_flags()
    for name in flags.words(star.row["quality_flags"]):
        assert f"{name:17} {flags[name].description}" in text
    clump = next(line for line in text.splitlines() if "red clump" in line)
    assert clump.split()[:2] == ["rc_prob", f"{star.row['rc_prob']:.3f}"]
    assert "±" not in clump
    good = "yes" if star.row["good_params"] else "no"
    assert f"good_params: {good}" in text


def test_plot_is_not_blank_and_is_reproducible(star: Explanation, tmp_path: Path) -> None:
    """Leaves output/star.png for inspection."""
    path = write_explain_plot(star, ROOT / "output" / "star.png")
    image = imread(path)
    assert image.shape[:2] == (1170, 1560)
    assert len(np.unique(image.reshape(-1, image.shape[2]), axis=0)) > 200
    again = write_explain_plot(star, tmp_path / "again.png")
    assert path.read_bytes() == again.read_bytes()


def test_a_star_without_a_calibrated_spectrum_has_a_plot(star: Explanation, tmp_path: Path) -> None:
    bare = replace(
        star, observed=None, predicted=None, wavelengths=None, predicted_coefficients=None
    )
    assert write_explain_plot(bare, tmp_path / "x.png").stat().st_size > 10_000
    assert "Spectrum that the model predicts" not in "\n".join(explanation_lines(bare))


def test_a_rejected_star_is_explained_by_its_reason(case: Case) -> None:
    star = explain(case.output, case.rejected_id)
    text = "\n".join(explanation_lines(star))
    assert "Rejected: wrong_length" in text
    assert "found 0 coefficients" in text
    assert "row 4" in text
    assert star.predictions == ()


def test_missing_stars_runs_models_and_files_are_refused(
    case: Case, copy: Path, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match=r"no such star(.|\n)*a source_id of .*(.|\n)*export DIR"):
        explain(case.output, 123)
    with pytest.raises(ResumeError, match="holds no run"):
        explain(tmp_path / "nowhere", case.ids[7])
    with pytest.raises(BundleError, match="model was not found"):
        explain(case.output, case.ids[7])
    moved = tmp_path / "moved.parquet"
    shutil.copy(case.input, moved)
    found = explain(case.output, case.ids[7], model=case.model, spectra=moved)
    assert found.file == moved
    with pytest.raises(InputError, match="not where the run found it"):
        explain(case.output, case.ids[7], model=case.model, spectra=tmp_path / "gone.parquet")
    pq.write_table(real_stars.bright().slice(3), moved)
    with pytest.raises(InputError, match="not the one that the run read"):
        explain(case.output, case.ids[7], model=case.model, spectra=moved)


def test_a_prediction_that_differs_from_the_catalog_is_an_error(case: Case, copy: Path) -> None:
    (receipt,) = [
        path for path in (copy / "receipts").glob("*.json")
        if json.loads(path.read_text())["first_row"] == 0
    ]  # fmt: skip
    part = copy / json.loads(receipt.read_text())["catalog_part"]
    table = pq.read_table(part)
    place = table.column_names.index("teff")
    other = pa.array(table["teff"].to_numpy() + 500, load_contract("catalog")["teff"].arrow_type)
    pq.write_table(table.set_column(place, table.schema.field(place), other), part)
    with pytest.raises(VerifyError, match="differs from the one in the catalog"):
        explain(copy, case.ids[7], model=case.model)
