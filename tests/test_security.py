"""Untrusted files open no other file and run no code, and no credentials get into files."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tomli_w
from support.bundles import tiny_bundle
from support.catalogs import catalog_table, identity, open_run, write_chunk
from support.paths import ROOT

from catalogproc.cluster.event_log import LOG_FILE, EventLog
from catalogproc.errors import BundleError, CatalogprocError, InputError, JobError, masked
from catalogproc.io.atomic import as_json
from catalogproc.job import load_job, load_training_job
from catalogproc.network.bundle import DECLARATION, WEIGHTS, load_bundle
from catalogproc.readers.gaia_source import open_auxiliary
from catalogproc.readers.xp import read_spectra
from catalogproc.report.html_report import write_report
from catalogproc.rundir.provenance import write_provenance
from catalogproc.rundir.summary import write_summary
from catalogproc.training.checkpoint import CHECKPOINT, load_checkpoint

PACKAGE = ROOT / "catalogproc"


# --- paths ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [DECLARATION, WEIGHTS, "latent.safetensors"])
def test_a_bundle_reads_nothing_outside_its_folder(name: str, tmp_path: Path) -> None:
    folder = tiny_bundle(tmp_path / "bundle").path
    elsewhere = tmp_path / name
    if (folder / name).exists():
        shutil.move(folder / name, elsewhere)  # the right content, in another place
    else:
        elsewhere.touch()
    (folder / name).symlink_to(elsewhere)
    with pytest.raises(BundleError, match=r"(?s)is not a regular file.*found: a link"):
        load_bundle(folder)


@pytest.mark.timeout(30)
def test_a_pipe_in_place_of_weights_is_refused(tmp_path: Path) -> None:
    folder = tiny_bundle(tmp_path / "bundle").path
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)
    with pytest.raises(BundleError, match="not a regular file"):
        load_bundle(folder)


@pytest.mark.parametrize("key", ["weights", "path", "latent", "card"])
def test_a_path_that_a_bundle_names_is_not_followed(key: str, tmp_path: Path) -> None:
    folder = tiny_bundle(tmp_path / "bundle").path
    hash_before = load_bundle(folder).hash
    body = (folder / DECLARATION).read_bytes().partition(b"\n")[2]
    text = tomli_w.dumps({key: "/etc/passwd"}).encode() + body
    first = f'hash = "{hashlib.sha256(text).hexdigest()}"\n'.encode()
    (folder / DECLARATION).write_bytes(first + text)
    found = load_bundle(folder)
    assert found.hash != hash_before
    assert "/etc/passwd" not in str({**vars(found), "shape": ""})


def test_a_model_card_that_is_a_link_is_not_shown_in_the_report(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    (tmp_path / "private").write_text("private text")
    run = identity(1, 53)
    from dataclasses import replace

    run = replace(run, model_hash=bundle.hash)
    open_run(tmp_path / "out", run)
    write_chunk(tmp_path / "out", run, 0, run.inputs[0], 0, catalog_table(50), 3)
    write_summary(tmp_path / "out")
    card = bundle.path / "CARD.md"
    card.write_text("text of the card")
    assert "text of the card" in write_report(tmp_path / "out", model=bundle.path).read_text()
    card.unlink()
    card.symlink_to(tmp_path / "private")
    assert "private text" not in write_report(tmp_path / "out", model=bundle.path).read_text()


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "..", ".", "", "a\x00b", "-rf"])
def test_a_training_job_writes_only_into_its_output(name: str, tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(tomli_w.dumps({"kind": "train", "bundle": name}))
    with pytest.raises(JobError, match="cannot be the name of a folder"):
        load_training_job(path)


@pytest.mark.parametrize("field", ["output", "model", "input", "path", "plugin", "module"])
def test_a_run_job_has_no_field_that_names_a_file(field: str, tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(f'kind = "run"\n{field} = "/etc/passwd"\n')
    with pytest.raises(JobError, match="unknown field of a job"):
        load_job(path)


def test_a_dust_map_is_given_by_name_and_not_by_path(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text('kind = "run"\ndust = "../../map"\n')
    with pytest.raises(JobError, match="no such dust map"):
        load_job(path)


# --- code ----------------------------------------------------------------------------------

FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib",
                     "yaml", "jsonpickle"}  # fmt: skip
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}


def test_nothing_in_the_package_unpickles_or_executes_the_content_of_a_file() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 100
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or "", *(a.name for a in node.names)]
                roots = {name.split(".")[0] for name in names}
                assert not roots & FORBIDDEN_MODULES, where
            elif isinstance(node, ast.Call):
                _assert_harmless(node, where)


def _assert_harmless(call: ast.Call, where: str) -> None:
    target = ast.unparse(call.func)
    assert target not in FORBIDDEN_CALLS, where
    assert target not in ("torch.load", "pd.read_pickle", "pandas.read_pickle"), where
    given = {word.arg: ast.unparse(word.value) for word in call.keywords}
    if target in ("np.load", "numpy.load"):
        assert given.get("allow_pickle", "False") == "False"  # which is numpy's own default, where
    assert given.get("shell", "False") == "False", where


class Bomb:
    """An object whose pickle creates a folder when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


def test_a_harmful_pickle_is_not_executed_in_any_kind_of_file(tmp_path: Path) -> None:
    hit = tmp_path / "hit"
    bomb = pickle.dumps(Bomb(hit))
    for name in ("a.parquet", "a.csv", "a.ecsv", "a.fits", "a.xml", "a.csv.gz", "a.npy", "a.pkl"):
        path = tmp_path / name
        path.write_bytes(bomb)
        with pytest.raises(InputError):
            list(read_spectra(path))
        with pytest.raises(CatalogprocError):
            open_auxiliary([path], tmp_path / "staging")
    folder = tiny_bundle(tmp_path / "bundle").path
    (folder / WEIGHTS).write_bytes(bomb)
    text = (folder / DECLARATION).read_text().partition("\n")[2]
    old = text.partition('weights_sha256 = "')[2][:64]
    text = text.replace(old, hashlib.sha256(bomb).hexdigest())
    first = f'hash = "{hashlib.sha256(text.encode()).hexdigest()}"\n'
    (folder / DECLARATION).write_text(first + text)
    bundle = load_bundle(folder)  # the hashes are right: anyone can compute them
    with pytest.raises(BundleError, match="the weights do not fit"):
        bundle.network()
    (tmp_path / CHECKPOINT).write_bytes(bomb)
    with pytest.raises(CatalogprocError, match="the checkpoint cannot be read"):
        load_checkpoint(tmp_path)
    assert not hit.exists()
    pickle.loads(bomb)
    assert hit.exists()  # the pickle does work


def test_arrow_metadata_is_not_unpickled(tmp_path: Path) -> None:
    """pyarrow once unpickled extension types that a file declares (CVE-2023-47248)."""
    hit = tmp_path / "hit"
    evil = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Bomb(hit)),
    }
    schema = pa.schema([pa.field("source_id", pa.int64(), metadata=evil)])
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"source_id": pa.array([1])}, schema=schema), path)
    with pytest.raises(CatalogprocError):
        list(read_spectra(path))
    assert not hit.exists()


# --- secrets -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://AKIA12:wJalr/XUtn@bucket/xp", "s3://…@bucket/xp"),
        ("https://user:pa55@host/x and ftp://me@h", "https://…@host/x and ftp://…@h"),
        ("https://h/x?X-Amz-Signature=abc&b=1", "https://h/x?X-Amz-Signature=…&b=1"),
        ("https://h/x?access_token=abc", "https://h/x?access_token=…"),
        ("s3:/AKIA12:wJalr/XUtn@bucket/xp", "s3:/…@bucket/xp"),
        ("s3://bucket/a@2024/x.parquet", "s3://bucket/a@2024/x.parquet"),
        ("tcp://127.0.0.1:8786", "tcp://127.0.0.1:8786"),
        ("a token=1 without any address", "a token=1 without any address"),
    ],
)
def test_credentials_in_addresses_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_credentials_are_in_no_file_and_no_message(tmp_path: Path) -> None:
    from dataclasses import replace

    address = "s3://AKIA12:wJalr/XUtn@bucket/xp.parquet?X-Amz-Signature=deadbeef"
    run = identity(1, 53)
    run = replace(run, inputs=(replace(run.inputs[0], path=address),))
    open_run(tmp_path, run)
    write_chunk(tmp_path, run, 0, run.inputs[0], 0, catalog_table(50), 3)
    write_summary(tmp_path, [{"chunk": "0", "file": address, "cause": f"{address} is not there"}])
    write_provenance(tmp_path)
    write_report(tmp_path)
    with EventLog(tmp_path) as log:
        log.write("chunk failed", file=address)
    assert "chunk failed" in (tmp_path / LOG_FILE).read_text()
    error = InputError("the file cannot be read", found=f"{address} is not there", where=address)
    assert "bucket/xp.parquet" in str(error)
    assert json.loads(as_json({"file": address}))["file"].startswith("s3://…@bucket")
    # The rejected rows are made by the test itself.
    parts = list((tmp_path / "rejected").iterdir())
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path not in parts]
    assert len(written) >= 6
    for content in (str(error), str(pickle.loads(pickle.dumps(error))),
                    *(path.read_bytes().decode("latin-1") for path in written)):  # fmt: skip
        assert "wJalr" not in content
        assert "deadbeef" not in content
