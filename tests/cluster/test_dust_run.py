"""A run that reads a dust map: tokens, distances, provenance, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from support import real_stars
from support.bundles import tiny_bundle
from support.dust_maps import write_combine19
from support.paths import CORRELATED
from support.runs import LOCAL

from catalogproc.cluster.plan import make_plan
from catalogproc.cluster.run import run
from catalogproc.cluster.spec import RunSpec
from catalogproc.cluster.worker_plugin import ModelPlugin, WorkerSetup
from catalogproc.errors import JobError, Refusal, WorkerError
from catalogproc.features import combined19, dust_map
from catalogproc.features.dust_map import DustMap
from catalogproc.inference.engine import Engine
from catalogproc.job import Job
from catalogproc.network.bundle import Bundle

JOB = Job("plain", inputs=("bprp", "jh", "jk", "logebv"))
DUSTY = replace(JOB, dust="combined19")


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> DustMap:
    folder = tmp_path_factory.mktemp("dust")
    write_combine19(folder / "combine19.h5")
    return combined19.stage(folder / "staged", folder / "combine19.h5")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


def gaia_source() -> pa.Table:
    """Return the table of 30 real stars, completed so that their parallaxes can be used; the first
    star has an E(B-V)."""
    table = real_stars.bright_auxiliary()
    given = {
        "nu_eff_used_in_astrometry": pa.array([1.5] * len(table)),
        "astrometric_params_solved": pa.array([31] * len(table)),
        "parallax_error": pa.array([0.02] * len(table)),
        "ebv": pa.array([0.3] + [None] * (len(table) - 1), pa.float32()),
    }
    for name, values in given.items():
        table = table.append_column(name, values)
    return table


def test_a_job_without_a_map_has_the_hash_of_before_there_were_maps() -> None:
    assert "dust" not in JOB.to_dict()
    assert DUSTY.hash != JOB.hash
    assert DUSTY.to_dict()["dust"] == "combined19"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dust": "sfd"}, r"no such dust map(.|\n)*combined19"),
        ({"dust": "combined19", "inputs": ("bprp",)}, r"does not read(.|\n)*logebv among"),
    ],
)
def test_an_unknown_or_unused_map_is_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(JobError, match=message):
        replace(JOB, **changed)  # type: ignore[arg-type]


def test_a_map_adds_a_token_if_none_was_given(bundle: Bundle, staged: DustMap) -> None:
    spectra, beside = real_stars.bright(), gaia_source()
    plain = Engine(bundle, JOB).features(spectra, beside)
    dusty = Engine(bundle, DUSTY, dust_map=staged).features(spectra, beside)
    column = bundle.vocabulary.column("logebv")
    assert dusty.values[0, column] == pytest.approx(
        np.log(0.3)
    )  # the table takes precedence over the map
    assert not dusty.by_parallax[0].any()
    assert not plain.by_parallax.any()
    read = dusty.by_parallax[:, column]
    assert (dusty.by_parallax.sum(axis=1) == read).all()
    assert read.sum() > 20
    ebv = staged.ebv(dusty.l[read], dusty.b[read], 1.0 / dusty.parallax_zpc[read])
    good = (ebv > 0) & (ebv < 10)
    off = dusty.values[read, column][good] - np.log(ebv[good])
    assert np.median(np.abs(off)) < 0.02  # bright stars: the distance alone gives nearly the same


def test_dust_at_the_parallax_is_no_input_of_what_is_compared_with_the_parallax(
    bundle: Bundle, staged: DustMap
) -> None:
    spectra, beside = real_stars.bright(), gaia_source()
    engine = Engine(bundle, DUSTY, dust_map=staged)
    tokens = engine.features(spectra, beside)
    read = tokens.by_parallax.any(axis=1)
    table = engine.process(spectra, beside)
    assert ((table["input_flags"].to_numpy() & 4 > 0) == read).all()
    without = Engine(bundle, JOB).process(spectra, beside)
    for name in ("g_fakemag", "dist", "mg0", "log_lum_g", "nn_parallax", "dist_comb", "plx_nsig"):
        found, wanted = table[name].to_numpy()[read], without[name].to_numpy()[read]
        np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=1e-4)
    moved = np.abs(table["teff"].to_numpy() - without["teff"].to_numpy())[read]
    assert (moved > 0.1).all()
    without = Engine(bundle, JOB).process(spectra, beside)
    more = table["n_tokens"].to_numpy() - without["n_tokens"].to_numpy()
    assert (more == read).all()
    assert np.isfinite(without["plx_nsig"].to_numpy()[read]).all()


def test_an_engine_needs_the_map_that_its_job_reads(bundle: Bundle) -> None:
    with pytest.raises(JobError, match="the job's dust map is missing"):
        Engine(bundle, DUSTY)


def test_a_run_without_a_staged_map_is_refused_with_advice(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(dust_map.FOLDER_VARIABLE, str(tmp_path / "nowhere"))
    spectra = CORRELATED / "xp_continuous_30.parquet"
    with pytest.raises(Refusal, match=r"no dust map(.|\n)*catalogproc dust"):
        make_plan(RunSpec(spectra, tmp_path / "out", (), bundle.path, dust="combined19"))
    assert not (tmp_path / "out").exists()


def test_a_run_reads_the_map_and_records_it(
    bundle: Bundle, staged: DustMap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(dust_map.FOLDER_VARIABLE, str(staged.folder.parent))
    spectra, beside = CORRELATED / "xp_continuous_30.parquet", tmp_path / "gaia.parquet"
    pq.write_table(gaia_source(), beside)

    def plan(output: str, dust: str | None = None):  # type: ignore[no-untyped-def]
        spec = RunSpec(spectra, tmp_path / output, beside, bundle.path, dust=dust, cluster=LOCAL)
        return make_plan(spec)

    plain, dusty = plan("plain"), plan("dusty", "combined19")
    assert plan("none", "none").identity.hash == plain.identity.hash
    assert dusty.identity.hash != plain.identity.hash
    assert staged.hash in {file.fingerprint for file in dusty.identity.auxiliary}
    assert run(dusty).exit_code == 0
    rows = ds.dataset(tmp_path / "dusty" / "catalog").to_table()
    engine = Engine(bundle, dusty.job, dust_map=staged)
    wanted = engine.process(real_stars.bright(), gaia_source())
    ours = rows.sort_by("source_id")["n_tokens"].to_pylist()
    assert ours == wanted.sort_by("source_id")["n_tokens"].to_pylist()


def test_a_worker_that_finds_another_map_is_refused(
    bundle: Bundle, staged: DustMap, tmp_path: Path
) -> None:
    dust = (staged.folder, "0" * 64)
    setup = WorkerSetup("run", bundle.path, bundle.hash, DUSTY, tmp_path, dust=dust)
    with pytest.raises(WorkerError, match="another dust map"):
        ModelPlugin("name", setup)._dust_map()
