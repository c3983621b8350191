"""A made-up next release, 51 BP coefficients in another basis, in every path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import simulated
from support.bundles import tiny_bundle
from support.releases import (
    PHOTOMETRY,
    cut,
    design_file,
    next_spectra,
    own_file,
    own_release,
    rotated,
    with_ids,
)
from support.xp_files import parquet_bytes, put, real

from catalogproc.cluster.plan import make_plan
from catalogproc.cluster.spec import RunSpec
from catalogproc.datasets.dataset import load_dataset
from catalogproc.datasets.star_reader import StarFiles, all_inputs_job, read_stars
from catalogproc.errors import BundleError, ReleaseError
from catalogproc.features.release_files import add_release
from catalogproc.inference.engine import Engine
from catalogproc.inference.model import load_model
from catalogproc.inference.process_chunk import process_chunk
from catalogproc.io.hashes import file_sha256
from catalogproc.job import Job
from catalogproc.network.bundle import Bundle, load_bundle
from catalogproc.network.predictor import Predictor
from catalogproc.readers import chunks
from catalogproc.readers.convert import convert_file
from catalogproc.readers.gaia_source import open_auxiliary
from catalogproc.release import load_release
from catalogproc.spectra.embed import embed
from catalogproc.spectra.infer import infer
from catalogproc.spectra.inpaint import InpaintRequest, SpectraOutput, inpaint
from catalogproc.training.real_data import RealOptions, split_spectra
from catalogproc.training.vocabulary_extension import extended_vocabulary
from catalogproc.vocabulary import load_vocabulary

NOT_READ = r"does not read(.|\n)*wanted: Gaia DR3: 55 BP(.|\n)*found: Gaia DR4: 51 BP \(basis 901\)"
JOB = Job("test", labels=("teff", "logg"), inputs=("bprp",), propagation="none")


@pytest.fixture(scope="module")
def dr3(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("dr3"))


@pytest.fixture
def spectra(tmp_path: Path) -> Path:
    return put(tmp_path, "next.parquet", parquet_bytes(next_spectra()))


def test_run_check_and_plan_refuse(dr3: Bundle, spectra: Path, tmp_path: Path) -> None:
    spec = RunSpec(spectra, tmp_path / "out", model=dr3.path, job="demo")
    with pytest.raises(ReleaseError, match=NOT_READ) as caught:
        make_plan(spec)
    assert "a model that was trained on Gaia DR4 (--model)" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_release_that_the_model_does_not_read_is_refused_by_name(dr3: Bundle) -> None:
    with pytest.raises(ReleaseError, match=r"Gaia DR3: 55 BP(.|\n)*Gaia DR4: 51 BP") as caught:
        dr3.for_release("dr4")
    assert "trained on Gaia DR4" in str(caught.value)
    assert dr3.name in str(caught.value)
    with pytest.raises(ReleaseError, match="no such release"):
        load_model(dr3.path, release="dr33")
    assert load_model(dr3.path, release="dr3").bundle.release == load_release("dr3")


def test_infer_and_predict_refuse(dr3: Bundle, spectra: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    with pytest.raises(ReleaseError, match=NOT_READ):
        infer(spectra, ["teff"], output, Predictor(dr3))
    with pytest.raises(ReleaseError, match=NOT_READ):
        load_model(dr3.path).predict(next_spectra(5))
    other = with_ids(real(5), {"bp": 901, "rp": 57})
    with pytest.raises(ReleaseError, match=r"55 BP \(basis 901\)"):
        load_model(dr3.path).predict(other)
    assert not output.exists()


def test_embed_and_inpaint_refuse(dr3: Bundle, spectra: Path, tmp_path: Path) -> None:
    files, predictor = StarFiles([spectra]), Predictor(dr3)
    with pytest.raises(ReleaseError, match=NOT_READ):
        embed(files, tmp_path / "a.parquet", predictor, JOB)
    request = InpaintRequest.of("all", "missing")
    with pytest.raises(ReleaseError, match=NOT_READ):
        inpaint(files, request, SpectraOutput(tmp_path / "b.parquet", None), predictor)


def test_convert_holds_the_file_against_the_named_release(spectra: Path, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="another Gaia release"):
        convert_file(spectra, tmp_path / "out", release=load_release("dr3"))
    done = convert_file(spectra, tmp_path / "out", release=own_release(tmp_path))
    stored = pq.read_schema(done.parts[0]).metadata
    assert (stored[b"release"], stored[b"release_epoch"]) == (b"own", b"J2017.5")
    assert pq.read_table(done.parts[0])["bp_basis_function_id"].to_pylist() == [901] * 20


def test_convert_rejects_single_rows_of_another_kind(tmp_path: Path) -> None:
    table = with_ids(real(9), {"bp": 56, "rp": 57}).to_pylist()
    table[2]["bp_coefficients"] = table[2]["bp_coefficients"][:51]
    table[4]["rp_basis_function_id"] = 902
    path = put(tmp_path, "a.parquet", parquet_bytes(pa.Table.from_pylist(table)))
    done = convert_file(path, tmp_path / "out")
    assert (done.rows_read, done.rows_written, done.rows_rejected) == (9, 7, 2)
    assert done.rejected is not None
    rejected = pq.read_table(done.rejected).to_pylist()
    assert [(row["row"], row["reason"]) for row in rejected] == [
        (2, "wrong_length"), (4, "other_basis"),
    ]  # fmt: skip


def test_training_refuses(spectra: Path, tmp_path: Path) -> None:
    vocabulary = load_vocabulary()
    with pytest.raises(ReleaseError, match=NOT_READ):
        split_spectra([spectra], vocabulary, RealOptions())
    other = load_vocabulary(release=own_release(tmp_path, PHOTOMETRY))
    with pytest.raises(ReleaseError, match=r"simulated instrument is that of Gaia DR3"):
        simulated.giants().tokens(other)
    with pytest.raises(BundleError, match="coefficients of the model mean something else"):
        extended_vocabulary(vocabulary, other)


def test_a_dataset_of_another_release_is_refused(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    from catalogproc.datasets import dataset

    facts = {"sha256": "0", "release": "dr3", "release_title": "Gaia DR3"}
    monkeypatch.setattr(dataset, "dataset_facts", lambda folder: facts)
    monkeypatch.setattr(dataset, "fingerprint", lambda folder: "0")
    other = load_vocabulary(release=own_release(tmp_path))
    with pytest.raises(ReleaseError, match=r"wanted: Gaia of tests(.|\n)*found: Gaia DR3"):
        load_dataset(tmp_path, other)


def test_rows_past_the_first_thousand_are_checked(dr3: Bundle, tmp_path: Path) -> None:
    good, bad = with_ids(real(1100), {"bp": 56, "rp": 57}), next_spectra(1200).slice(1100)
    strange = with_ids(real(1250).slice(1200), {"bp": 901, "rp": 57})
    table = pa.concat_tables([good, bad.cast(good.schema), strange])
    path = put(tmp_path, "mixed.parquet", parquet_bytes(table))
    make_plan(RunSpec(path, tmp_path / "out", model=dr3.path, job="demo"))
    (chunk,) = chunks.cut([path], 10_000)
    receipt = process_chunk(Engine(dr3, JOB), chunk, None, tmp_path / "out")
    assert (receipt.rows_read, receipt.rows_written) == (1250, 1100)
    assert receipt.rejected_by_reason == {"wrong_length": 100, "other_basis": 50}


def test_a_model_of_a_users_release_reads_its_spectra(spectra: Path, tmp_path: Path) -> None:
    own = own_release(tmp_path, PHOTOMETRY)
    bundle = tiny_bundle(tmp_path / "model", load_vocabulary(release=own))
    again = load_bundle(bundle.path)
    assert again.release == own
    assert again.release.name == "own"
    assert (again.vocabulary.release, again.vocabulary.basis) == ("own", "archive")
    assert again.vocabulary.coefficients("bp") == 51
    assert len(again.vocabulary) == len(load_vocabulary()) - 55 + 51
    source = pa.table({
        "source_id": next_spectra()["source_id"],
        "phot_g_mean_mag": np.full(20, 13.0),
        "phot_bp_mean_mag": np.full(20, 13.5),
        "phot_rp_mean_mag": np.full(20, 12.4),
    })  # fmt: skip
    beside = put(tmp_path, "gaia.parquet", parquet_bytes(source))
    job = all_inputs_job(again.vocabulary)
    ((batch, made),) = read_stars(StarFiles([spectra], [beside]), again.vocabulary, job)
    assert batch.num_rows == 20
    flux = 10 ** (0.4 * (25.7 - 13.0))
    bp0 = np.array([row[0] for row in next_spectra()["bp_coefficients"].to_pylist()])
    np.testing.assert_allclose(made.values[:, again.vocabulary.column("bp0")], bp0 / flux)
    path = own_file(tmp_path, PHOTOMETRY)
    job = "kind = 'run'\npropagation = 'none'\nlabels = ['teff']\n"
    (tmp_path / "job.toml").write_text(job)
    spec = RunSpec(spectra, tmp_path / "out", beside, bundle.path, tmp_path / "job.toml",
                   release=path)  # fmt: skip
    plan = make_plan(spec)
    assert plan.identity.release["title"] == "Gaia of tests"
    (chunk,) = plan.chunks
    joined = open_auxiliary([beside], tmp_path / "staging")
    receipt = process_chunk(Engine(plan.bundle, plan.job), chunk, joined, tmp_path / "part")
    part = pq.read_schema(tmp_path / "part" / receipt.catalog_part).metadata
    assert (part[b"release"], part[b"release_epoch"]) == (b"own", b"J2017.5")
    assert b'epoch="J2017.5"' in part[b"IVOA.VOTable-Parquet.content"]
    assert receipt.rows_written + receipt.rows_rejected == 20
    for wrong in (real(9), cut(next_spectra(9), {"bp": 40, "rp": 40})):
        other = put(tmp_path, "other.parquet", parquet_bytes(wrong))
        with pytest.raises(ReleaseError, match="wanted: Gaia of tests: 51 BP"):
            make_plan(RunSpec(other, tmp_path / "out2", model=bundle.path, job=spec.job))


def test_a_canonical_model_of_dr3_runs_on_a_release_with_a_design(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "model", load_vocabulary(basis="canonical"))
    table = rotated(real(30), correlations=True)
    spectra = put(tmp_path, "next.parquet", parquet_bytes(table))
    (tmp_path / "job.toml").write_text(
        "kind = 'run'\npropagation = 'none'\nlabels = ['teff']\nmask_irrelevant = false\n"
    )

    def spec(output: str, files: Path, release: str | Path | None = None) -> RunSpec:
        job = tmp_path / "job.toml"
        return RunSpec(files, tmp_path / output, model=bundle.path, job=job, release=release)

    with pytest.raises(ReleaseError, match=r"does not read(.|\n)*--release(.|\n)*release add"):
        make_plan(spec("refused", spectra))
    with pytest.raises(ReleaseError, match=r"design matrices(.|\n)*release add(.|\n)*bridge fit"):
        make_plan(spec("refused", spectra, "dr4"))
    own = add_release([design_file(tmp_path)], tmp_path / "next.toml",
                      str(own_file(tmp_path, PHOTOMETRY)), "dr4next").path  # fmt: skip
    with pytest.raises(ReleaseError, match="wanted: Gaia of tests: 51 BP"):
        make_plan(spec("refused", put(tmp_path, "a.parquet", parquet_bytes(real(30))), own))
    found = []
    for output, files, release in (("b", spectra, own), ("c", tmp_path / "a.parquet", None)):
        plan = make_plan(spec(output, files, release))
        (chunk,) = plan.chunks
        engine = Engine(plan.bundle, plan.job)
        receipt = process_chunk(engine, chunk, None, tmp_path / output)
        assert receipt.rows_written == 30
        found.append(pq.read_table(tmp_path / output / receipt.catalog_part))
        if release is None:
            continue
        design = plan.identity.release["design"]["sha256"]
        assert design == file_sha256(tmp_path / "next.npz")
        assert found[0].schema.metadata[b"release"] == b"dr4next"
        assert found[0].schema.metadata[b"release_epoch"] == b"J2017.5"
    for name, limit in (("teff", 5.0), ("g_mag", 1e-4), ("bp_rp", 1e-3)):
        if name in found[0].column_names:
            first, second = (one[name].to_numpy() for one in found)
            np.testing.assert_allclose(first, second, atol=limit)


def test_what_the_release_does_not_state_is_asked_for_before_a_run(
    spectra: Path, tmp_path: Path
) -> None:
    bundle = tiny_bundle(tmp_path / "model", load_vocabulary(release=own_release(tmp_path)))
    with pytest.raises(ReleaseError, match=r"\[photometry.magnitudes.G\]; zero_point = "):
        make_plan(RunSpec(spectra, tmp_path / "out", model=bundle.path, job="demo"))
    more = own_file(tmp_path, PHOTOMETRY)
    # The factors of the errors, and magnitudes of stars without photometry.
    with pytest.raises(ReleaseError, match=r"\[design\]; file = "):
        make_plan(RunSpec(spectra, tmp_path / "out", model=bundle.path, job="demo", release=more))
