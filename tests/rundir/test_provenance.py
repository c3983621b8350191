"""What a run says of itself: summary.json and provenance.json."""

from __future__ import annotations

import getpass
import json
import socket
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prov.model import (
    ProvActivity,
    ProvAgent,
    ProvDerivation,
    ProvDocument,
    ProvElement,
    ProvEntity,
    ProvGeneration,
    ProvUsage,
)
from support.catalogs import STARTED, catalog_table, finished_run, identity, write_chunk
from support.paths import ROOT

from catalogproc import __version__
from catalogproc.rundir import provenance as module
from catalogproc.rundir.manifest import InputFile, RunIdentity, open_run
from catalogproc.rundir.provenance import VOPROV, check_provenance, write_provenance
from catalogproc.rundir.receipts import Receipt, read_receipts
from catalogproc.rundir.summary import read_summary, summarise, versions, write_summary


@pytest.fixture
def receipts(tmp_path: Path) -> list[Receipt]:
    finished_run(tmp_path, files=2, chunks=3, rows=20, rejected=2)
    return list(read_receipts(tmp_path).values())


def document(folder: Path) -> ProvDocument:
    return ProvDocument.deserialize(str(folder / "provenance.json"))


def at(receipt: Receipt, start: float, seconds: float) -> Receipt:
    moment = STARTED + timedelta(seconds=start)
    end = moment + timedelta(seconds=seconds)
    return replace(receipt, started=moment.isoformat(), finished=end.isoformat(), seconds=seconds)


# ---------------------------------------------------------------- summary


def test_the_summary_counts_what_the_receipts_say(tmp_path: Path, receipts: list[Receipt]) -> None:
    content = read_summary(tmp_path)
    assert content is not None
    assert content["rows_read"] == 6 * 22
    assert content["rows_written"] == 6 * 20
    assert content["rows_rejected"] == 6 * 2
    assert content["rejected_by_reason"] == {"no_coefficients": 12}
    assert (content["chunks"], content["chunks_failed"], content["input_files"]) == (6, 0, 2)
    assert content["model"]["name"] == "tiny"
    assert content["model"]["training"] == {"data": "simulated"}
    assert content["versions"] == {"catalogproc": "0.1.0", "python": "3.11"}
    assert content["stage_seconds"] == {"model": 9.0, "read": 3.0}


def test_seconds_are_those_in_which_something_was_done(receipts: list[Receipt]) -> None:
    """Two workers side by side, then a night between two starts, then one more chunk."""
    a, b, c, *_ = receipts
    spans = [at(a, 0, 10), at(b, 5, 10), at(c, 40_000, 5)]
    content = summarise(identity(), spans)
    assert content["seconds"] == 20.0
    assert content["stars_per_second"] == round(3 * 22 / 20.0, 1)
    assert summarise(identity(), spans[::-1]) == content
    jumped = replace(spans[2], finished="1999-01-01T00:00:00+00:00")  # a clock that was set back
    assert summarise(identity(), [*spans[:2], jumped])["seconds"] == 20.0


def test_an_empty_run_has_a_summary(tmp_path: Path) -> None:
    open_run(tmp_path, identity())
    content = write_summary(tmp_path)
    assert content["rows_read"] == content["chunks"] == 0
    assert content["stars_per_second"] == 0.0
    write_provenance(tmp_path)
    assert check_provenance(tmp_path, identity(), []) == []


def test_failures_stand_in_the_summary(tmp_path: Path, receipts: list[Receipt]) -> None:
    failed = {"file": "xp/b.parquet", "cause": "truncated: wanted PAR1 ≠ found …"}
    write_summary(tmp_path, [failed])
    content = read_summary(tmp_path)
    assert content is not None
    assert (content["chunks_failed"], content["failures"]) == (1, [failed])


def test_versions_mixed_by_an_upgrade_are_all_named(receipts: list[Receipt]) -> None:
    newer = replace(receipts[0], versions={"catalogproc": "0.2.0"})
    assert summarise(identity(), [newer, *receipts[1:]])["versions"] == {
        "catalogproc": "0.1.0, 0.2.0", "python": "3.11",
    }  # fmt: skip


def test_writing_again_changes_no_byte(tmp_path: Path, receipts: list[Receipt]) -> None:
    names = ("summary.json", "provenance.json")
    before = [(tmp_path / name).read_bytes() for name in names]
    write_summary(tmp_path)
    write_provenance(tmp_path)
    assert [(tmp_path / name).read_bytes() for name in names] == before


def test_a_summary_that_is_garbage_is_none(tmp_path: Path) -> None:
    for content in ("", "[]", "{"):
        (tmp_path / "summary.json").write_text(content)
        assert read_summary(tmp_path) is None


def test_versions_are_told_without_importing_anything() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from catalogproc.rundir.summary import versions;"
        "found = versions();"
        "print(found['torch'], 'torch' in sys.modules)"
    )
    root = ROOT
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    ).stdout.split()
    assert said == [versions()["torch"], "False"]
    assert versions()["catalogproc"] == __version__


# ---------------------------------------------------------------- W3C PROV


def attributes(record: ProvElement) -> dict[str, Any]:
    return {str(name): value for name, value in record.attributes}


def test_provenance_is_prov_json_that_prov_reads(tmp_path: Path, receipts: list[Receipt]) -> None:
    found = document(tmp_path)
    assert found == module.provenance(identity(2, 66), list(receipts))
    assert ProvDocument.deserialize(content=found.serialize()) == found
    assert "activity(run:run" in found.get_provn()


def test_every_identifier_that_is_used_is_declared_once(
    tmp_path: Path, receipts: list[Receipt]
) -> None:
    found = document(tmp_path)
    declared = [record.identifier for record in found.get_records(ProvElement)]
    assert len(set(declared)) == len(declared)
    for record in found.get_records():
        if isinstance(record, ProvElement):
            continue
        for name, value in record.formal_attributes:
            if hasattr(value, "uri"):
                assert value in declared, (name, value)


def test_each_part_leads_back_to_its_input_model_and_software(
    tmp_path: Path, receipts: list[Receipt]
) -> None:
    """From a part's hash to the bytes it came from, along the relations alone."""
    found = document(tmp_path)
    for receipt in receipts:
        (part,) = [
            record
            for record in found.get_records(ProvEntity)
            if attributes(record).get("cp:sha256") == receipt.catalog_sha256
        ]
        (made,) = [r for r in found.get_records(ProvGeneration) if r.args[0] == part.identifier]
        (activity,) = found.get_record(made.args[1])
        assert isinstance(activity, ProvActivity)
        assert attributes(activity)["cp:input_sha256"] == receipt.input_sha256
        assert activity.get_startTime().isoformat() == receipt.started
        used = {
            str(r.args[1]): attributes(r)["prov:role"]
            for r in found.get_records(ProvUsage)
            if r.args[0] == activity.identifier
        }
        source = f"run:input-{receipt.input_fingerprint[:16]}"
        assert used == {source: "spectra", "run:model": "model"}
        derived = [r for r in found.get_records(ProvDerivation) if r.args[0] == part.identifier]
        assert [str(r.args[1]) for r in derived] == [source]
        (entity,) = found.get_record(source)
        assert attributes(entity)["cp:fingerprint"] == receipt.input_fingerprint
        assert attributes(entity)["prov:location"] == receipt.file
    (agent,) = found.get_records(ProvAgent)
    assert attributes(agent)["cp:version"] == "0.1.0"


def test_ivoa_terms_stand_as_namespaced_attributes(tmp_path: Path, receipts: list[Receipt]) -> None:
    text = (tmp_path / "provenance.json").read_text()
    assert json.loads(text)["prefix"]["voprov"] == VOPROV
    assert VOPROV == "http://www.ivoa.net/documents/ProvenanceDM/index.html#"
    (catalog,) = document(tmp_path).get_record("run:catalog")
    kinds = {str(value) for name, value in catalog.attributes if str(name) == "prov:type"}
    assert kinds == {"voprov:DatasetEntity", "prov:Collection"}


def test_no_user_host_or_environment_is_told(
    tmp_path: Path, receipts: list[Receipt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2-secret")
    write_summary(tmp_path)
    write_provenance(tmp_path)
    for name in ("summary.json", "provenance.json", "run.json"):
        text = (tmp_path / name).read_text()
        for word in ("hunter2", "a-host", socket.gethostname(), f"/{getpass.getuser()}/"):
            assert word not in text


def test_many_chunks_are_left_to_the_receipts(
    tmp_path: Path, receipts: list[Receipt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DETAILED", 5)
    write_provenance(tmp_path)
    found = document(tmp_path)
    assert [str(r.identifier) for r in found.get_records(ProvActivity)] == ["run:run"]
    (entity,) = found.get_record("run:receipts")
    assert attributes(entity)["cp:sha256"] == module.receipts_digest(receipts)
    assert attributes(entity)["prov:location"] == "receipts"
    for name in ("chunk_id", "catalog_sha256", "rejected_sha256"):
        changed = [replace(receipts[0], **{name: "0" * 64}), *receipts[1:]]
        (finding,) = check_provenance(tmp_path, identity(2, 66), changed)
        assert "receipts has sha256" in finding, name
    assert module.receipts_digest(receipts[::-1]) == module.receipts_digest(receipts)


def test_what_disagrees_is_found(tmp_path: Path, receipts: list[Receipt]) -> None:
    run = identity(2, 66)
    assert check_provenance(tmp_path, run, receipts) == []
    other = [replace(receipts[0], rows_written=19, rows_rejected=3), *receipts[1:]]
    said = "\n".join(check_provenance(tmp_path, run, other))
    assert f"catalog-{receipts[0].chunk_id} has rows 20, not 19" in said
    assert "catalog has rows_written 120, not 119" in said
    assert check_provenance(tmp_path, replace(run, model_hash="0" * 64), receipts)
    for content in ("", "{", '{"entity": 3}', '{"activity": {"x": {"prov:startTime": []}}}'):
        (tmp_path / "provenance.json").write_text(content)
        assert check_provenance(tmp_path, run, receipts), content


def test_the_role_of_everything_that_a_run_used_is_stated(tmp_path: Path) -> None:
    run = replace(identity(1), auxiliary=(InputFile("gaia.fits", "5" * 64),))
    done = write_chunk(tmp_path, run, 0, run.inputs[0], 0, catalog_table(5, run_id=run.run_id))
    found = module.provenance(run, [done])
    spectra, auxiliary = f"run:input-{run.inputs[0].fingerprint[:16]}", f"run:auxiliary-{'5' * 16}"
    roles = {
        str(record.args[1]): attributes(record)["prov:role"]
        for record in found.get_records(ProvUsage)
        if str(record.args[0]) == "run:run"
    }
    assert roles == {
        spectra: "spectra",
        auxiliary: "auxiliary table",
        "run:model": "model",
        "run:job": "configuration",
        "run:release": "release",
        "run:contract-catalog": "contract",
        "run:contract-rejected": "contract",
        "run:contract-receipt": "contract",
    }
    for product in ("run:catalog", "run:rejected"):
        sources = {
            str(record.args[1])
            for record in found.get_records(ProvDerivation)
            if str(record.args[0]) == product
        }
        assert sources == {spectra, auxiliary, "run:model"}


def test_auxiliary_tables_and_unreadable_files_have_a_location(tmp_path: Path) -> None:
    run = replace(
        identity(2),
        inputs=(*identity(2).inputs, InputFile("xp/x.parquet", ""), InputFile("xp/y.parquet", "")),
        auxiliary=(InputFile("gaia.fits", "5" * 64),),
    )
    open_run(tmp_path, run)
    table = catalog_table(5, run_id=run.run_id)
    done = write_chunk(tmp_path, run, 0, run.inputs[0], 0, table)
    write_provenance(tmp_path)
    found = document(tmp_path)
    places = {attributes(r).get("prov:location") for r in found.get_records(ProvEntity)}
    assert {"xp/x.parquet", "xp/y.parquet", "gaia.fits", "xp/a.parquet"} <= places
    assert check_provenance(tmp_path, run, [done]) == []


def test_an_identity_that_changed_is_another_run() -> None:
    run: RunIdentity = identity()
    assert replace(run, contracts={"catalog": 2}).hash != run.hash
