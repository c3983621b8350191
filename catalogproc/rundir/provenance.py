"""provenance.json: the origin of a catalog.

It is W3C PROV (PROV-DM, 2013; PROV-JSON submission, 2013) with the terms of the IVOA Provenance
Data Model 1.0 (2020) as namespaced attributes. It follows from run.json and the receipts alone,
so it can be written again and checked at any time. It has no name of a user or host, and nothing
of the environment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from catalogproc.io.atomic import as_json, write_atomic
from catalogproc.io.hashes import sha256
from catalogproc.rundir.manifest import (
    CATALOG,
    POSTERIOR,
    RECEIPTS,
    REJECTED,
    RunIdentity,
    read_identity,
)
from catalogproc.rundir.receipts import Receipt, iterate_receipts
from catalogproc.rundir.summary import read_json, versions

PROVENANCE_FILE = "provenance.json"
DETAILED = 2_000
"""Up to this number of chunks, and of files in chunks of several, provenance.json lists each
chunk; beyond, the receipts do."""
VOPROV = "http://www.ivoa.net/documents/ProvenanceDM/index.html#"
TERMS = "urn:catalogproc:terms#"


def write_provenance(folder: Path) -> Path:
    """Write provenance.json from run.json and the receipts.

    Parameters
    ----------
    folder
        The output folder of a run.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ResumeError
        The folder holds no run.
    CatalogprocError
        The file cannot be written.
    """
    document = provenance(read_identity(folder), list(iterate_receipts(folder)))
    path = Path(folder) / PROVENANCE_FILE
    write_atomic(path, as_json(json.loads(document.serialize(format="json"))))
    return path


def receipts_digest(receipts: Iterable[Receipt]) -> str:
    """Return the SHA-256 (hex) of the names of all chunks and the hashes of their parts.

    Parameters
    ----------
    receipts
        The receipts of a run, in any order.
    """
    lines = sorted(f"{r.chunk_id} {r.catalog_sha256} {r.rejected_sha256}\n" for r in receipts)
    return sha256("".join(lines).encode())


def provenance(identity: RunIdentity, receipts: Sequence[Receipt]) -> Any:
    """Return the run as a prov.model.ProvDocument.

    Entities are the input files, the gaia_source and auxiliary tables, the model, the job, the
    contracts, the catalog, the rejected rows, the receipts, and each part; activities are the
    run and each of its chunks; agents are the versions of catalogproc that ran. With more than
    :data:`DETAILED` chunks, chunks and their parts are left out: the document holds the digest
    of their receipts.

    Parameters
    ----------
    identity
        The run.
    receipts
        Its receipts.
    """
    from prov.model import ProvDocument

    document = ProvDocument()
    document.add_namespace("run", f"urn:catalogproc:run:{identity.hash}#")
    document.add_namespace("cp", TERMS)
    document.add_namespace("voprov", VOPROV)
    agents = _add_agents(document, receipts)
    _add_run(document, identity, receipts, agents)
    if sum(len(receipt.each_file()) for receipt in receipts) <= DETAILED:
        for receipt in receipts:
            _add_chunk(document, receipt, agents)
    return document


def _add_agents(document: Any, receipts: Sequence[Receipt]) -> dict[str, str]:
    """Add an agent for each version of catalogproc that ran; return identifiers by version."""
    used = {receipt.versions.get("catalogproc", "unknown") for receipt in receipts}
    agents = {}
    for number in sorted(used or {versions()["catalogproc"]}):
        agents[number] = "run:catalogproc-" + re.sub(r"[^\w.-]", "-", number)
        document.agent(
            agents[number],
            {
                "prov:type": document.valid_qualified_name("prov:SoftwareAgent"),
                "voprov:name": "catalogproc",
                "cp:version": number,
            },
        )
    return agents


def _add_run(
    document: Any, identity: RunIdentity, receipts: Sequence[Receipt], agents: Mapping[str, str]
) -> None:
    moments = [datetime.fromisoformat(r.started) for r in receipts]
    ends = [datetime.fromisoformat(r.finished) for r in receipts]
    document.activity(
        "run:run",
        min(moments, default=None),
        max(ends, default=None),
        {"voprov:name": f"run {identity.run_id} of catalogproc", "cp:hash": identity.hash},
    )
    used = _add_inputs(document, identity)
    for entity, role in used.items():
        document.used("run:run", entity, other_attributes={"prov:role": role})
    for agent in agents.values():
        document.wasAssociatedWith("run:run", agent, plan="run:job")
    written = sum(r.rows_written for r in receipts)
    products = [
        ("catalog", CATALOG, "rows_written", written),
        ("rejected", REJECTED, "rows_rejected", sum(r.rows_rejected for r in receipts)),
    ]
    if POSTERIOR in identity.contracts:
        products.append(("posterior", POSTERIOR, "rows_written", written))
    for name, location, counted, rows in products:
        _dataset(document, f"run:{name}", location, {f"cp:{counted}": rows}, collection=True)
        document.wasGeneratedBy(f"run:{name}", "run:run")
        for entity, role in used.items():
            if role in ("spectra", "auxiliary table", "model"):
                document.wasDerivedFrom(f"run:{name}", entity, activity="run:run")
    digest = {"cp:sha256": receipts_digest(receipts), "cp:chunks": len(receipts)}
    _dataset(document, "run:receipts", RECEIPTS, digest, collection=True)
    document.wasGeneratedBy("run:receipts", "run:run")


def _add_inputs(document: Any, identity: RunIdentity) -> dict[str, str]:
    """Add everything that the run used as entities; return their roles by identifier."""
    used = {}
    for word, role, files in (
        ("input", "spectra", identity.inputs),
        ("auxiliary", "auxiliary table", identity.auxiliary),
    ):
        for file in files:
            # A file that could not even be opened has no fingerprint.
            fingerprint = file.fingerprint or sha256(file.path.encode())
            name = f"run:{word}-{fingerprint[:16]}"
            if name not in used:
                _dataset(document, name, file.path, {"cp:fingerprint": file.fingerprint})
                used[name] = role
    trained = as_json(identity.model.get("training", {})).decode().strip()
    _dataset(
        document,
        "run:model",
        None,
        {
            "voprov:name": str(identity.model.get("name", "")),
            "voprov:comment": str(identity.model.get("description", "")),
            "cp:sha256": identity.model_hash,
            "cp:training": trained,
        },
    )
    return used | {"run:model": "model"} | _add_declared(document, identity)


def _add_declared(document: Any, identity: RunIdentity) -> dict[str, str]:
    """Add job, release and contracts as entities; return their roles by identifier."""
    document.entity(
        "run:job",
        {
            "prov:type": document.valid_qualified_name("prov:Plan"),
            "voprov:name": str(identity.job.get("name", "")),
            "cp:sha256": identity.job_hash,
            "cp:content": json.dumps(dict(identity.job), sort_keys=True, default=str),
        },
    )
    release = identity.data_release
    document.entity(
        "run:release",
        {
            "prov:type": document.valid_qualified_name("voprov:DatasetDescription"),
            "voprov:name": release.title,
            "cp:sha256": release.hash,
            "cp:content": json.dumps(dict(identity.release), sort_keys=True),
        },
    )
    used = {"run:job": "configuration", "run:release": "release"}
    for name, number in identity.contracts.items():
        entity = f"run:contract-{name}"
        document.entity(
            entity,
            {
                "prov:type": document.valid_qualified_name("voprov:DatasetDescription"),
                "voprov:name": name,
                "voprov:version": number,
            },
        )
        used[entity] = "contract"
    return used


def _add_chunk(document: Any, receipt: Receipt, agents: Mapping[str, str]) -> None:
    activity = f"run:chunk-{receipt.chunk_id}"
    sources = [f"run:input-{one.fingerprint[:16]}" for one in receipt.each_file()]
    document.activity(
        activity,
        datetime.fromisoformat(receipt.started),
        datetime.fromisoformat(receipt.finished),
        {
            "voprov:name": f"chunk {receipt.chunk_id}",
            "cp:first_row": receipt.first_row,
            "cp:rows_read": receipt.rows_read,
            "cp:input_sha256": receipt.input_sha256,
            "cp:device": receipt.device,
            "cp:precision": receipt.precision,
        },
    )
    document.wasStartedBy(activity, starter="run:run")
    for source in sources:
        document.used(activity, source, other_attributes={"prov:role": "spectra"})
    document.used(activity, "run:model", other_attributes={"prov:role": "model"})
    agent = agents[receipt.versions.get("catalogproc", "unknown")]
    document.wasAssociatedWith(activity, agent, plan="run:job")
    for path, checksum, rows in receipt.parts():
        product = path.split("/")[0]
        part = f"run:{product}-{receipt.chunk_id}"
        _dataset(document, part, path, {"cp:sha256": checksum, "cp:rows": rows})
        document.wasGeneratedBy(part, activity, datetime.fromisoformat(receipt.finished))
        for source in sources:
            document.wasDerivedFrom(part, source, activity=activity)
        document.hadMember(f"run:{product}", part)


def _dataset(
    document: Any,
    identifier: str,
    location: str | None,
    attributes: Mapping[str, Any],
    *,
    collection: bool = False,
) -> None:
    kinds = ["voprov:DatasetEntity"] + (["prov:Collection"] if collection else [])
    stated = [("prov:type", document.valid_qualified_name(kind)) for kind in kinds]
    if location is not None:
        stated += [("prov:location", location), ("voprov:name", location.rpartition("/")[2])]
    document.entity(identifier, stated + list(attributes.items()))


def check_provenance(folder: Path, identity: RunIdentity, receipts: Sequence[Receipt]) -> list[str]:
    """Return a finding for each value of provenance.json that disagrees with the receipts.

    Parameters
    ----------
    folder
        The output folder of a run.
    identity, receipts
        The run and its receipts.
    """
    from prov.model import ProvDocument

    content = read_json(Path(folder) / PROVENANCE_FILE)
    if content is None:
        return [f"{PROVENANCE_FILE} is missing or cannot be read"]
    try:
        found = ProvDocument.deserialize(content=json.dumps(content), format="json")
    except Exception as error:  # prov raises whatever its parser meets
        return [f"{PROVENANCE_FILE} is not PROV-JSON: {error}"]
    stated = _stated(found)
    return [
        f"{PROVENANCE_FILE}: {entity} has {name} {stated.get((entity, name))}, not {value}"
        for (entity, name), value in _stated(provenance(identity, receipts)).items()
        if stated.get((entity, name)) != value
    ]


def _stated(document: Any) -> dict[tuple[str, str], str]:
    """Return the hashes and counts that a document states, by identifier and attribute."""
    names = ("sha256", "hash", "fingerprint", "chunks", "rows", "rows_read", "rows_written")
    checked = {TERMS + name for name in (*names, "rows_rejected")}
    return {
        (record.identifier.uri, name.uri.rpartition("#")[2]): str(value)
        for record in document.get_records()
        if record.identifier is not None
        for name, value in record.attributes
        if name.uri in checked
    }
