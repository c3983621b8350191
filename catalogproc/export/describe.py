"""Descriptions of tables, flags, models, jobs and finished catalogs for people to read."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from catalogproc.contract import Contract, load_contract
from catalogproc.errors import JobError, did_you_mean, plural
from catalogproc.export.describe_file import describe_file
from catalogproc.export.sections import ALSO, Section
from catalogproc.features.derived_labels import DERIVED
from catalogproc.flags import load_flags, load_input_flags
from catalogproc.job import Job, TrainingJob, load_job, load_training_job, shipped_jobs
from catalogproc.release import Release, load_release, shipped_releases
from catalogproc.resources import shipped
from catalogproc.vocabulary import BANDS

VOCABULARY = ("vocabulary", "tokens")
CONTRACTS = ("catalog", "posterior", "prior", "xp_continuous", "gaia_source", "rejected", "receipt")


def describe(what: str) -> list[Section]:
    """Return sections that describe a contract, the flags, a model, a job or a run.

    Parameters
    ----------
    what
        Name of a contract, ``flags``, ``vocabulary`` or ``tokens``, name or folder of a model,
        name or file of a job or of a release, a run folder, or a file of spectra or of other
        data.

    Raises
    ------
    JobError
        Nothing has that name; the message lists the names.
    InputError
        A file of data that cannot be read.
    """
    path = Path(what)
    if what in CONTRACTS:
        return [_contract(load_contract(what))]
    if what == "flags":
        return _flags()
    if what in VOCABULARY:
        return _vocabulary()
    if (path / "run.json").is_file():
        return _run(path)
    if (path / "bundle.toml").is_file() or what == "default" or what in _models():
        return _model(what)
    if what in shipped_releases() or _is_release(path):
        return _release(load_release(what))
    if path.suffix == ".toml" or what in shipped_jobs():
        return [_job(what)]
    if path.is_file():
        return describe_file(path)
    names = (
        *CONTRACTS, "flags", *VOCABULARY, "default", *_models(), *shipped_jobs(),
        *shipped_releases(),
    )  # fmt: skip
    raise JobError(
        "nothing of that name",
        wanted=", ".join(
            (*names, "a file of a job, a release or of data, a bundle's or a run's folder")
        ),
        found=what,
        advice=did_you_mean(what, names),
    )


def _models() -> tuple[str, ...]:
    return tuple(sorted(path.parent.name for path in shipped("model").glob("*/bundle.toml")))


def _contract(contract: Contract) -> Section:
    """The columns, with their other names where the contract has any."""
    header = ["column", "type", "unit", "UCD", "meaning"]
    aliases = any(column.also for column in contract.columns)
    if aliases:
        header.append(ALSO)
    rows = tuple(
        (column.name, column.type, column.unit, column.ucd, column.description)
        + ((", ".join(column.also),) if aliases else ())
        for column in contract.columns
    )
    return Section(
        f"{contract.name}, version {contract.version}", contract.description, tuple(header), rows
    )


def _flags() -> list[Section]:
    flags = load_flags()
    header = ("bit", "value", "name", "set when", "source", "excluded from")
    rows = tuple(
        (str(f.bit), str(f.value), f.name, f.description, f.source, _excluded_from(f.value))
        for f in flags.flags
    )
    facts = tuple(
        (str(f.bit), str(f.value), f.name, f.description, f.source)
        for f in load_input_flags().flags
    )
    return [
        Section(
            "quality_flags", "A set bit is a warning; a clear bit is no guarantee.", header, rows
        ),
        Section(
            "input_flags",
            "A set bit states a fact about a star that is no fault; no bit excludes "
            "it from good_params or good_mass_age.",
            header[:-1],
            facts,
        ),
    ]


def _vocabulary() -> list[Section]:
    """Return the tokens, the coefficients of a band in one row, and the derived labels."""
    from catalogproc.network.bundle import load_bundle

    bundle = load_bundle("default")
    vocabulary, requestable = bundle.vocabulary, set(bundle.requestable)
    rows = []
    for band in BANDS:
        tokens = [token for token in vocabulary.tokens if token.band == band]
        first, last = tokens[0], tokens[-1]
        rows.append((f"{first.name} ... {last.name}", "coefficient", first.unit,
                     first.description.partition(", coefficient")[0],
                     "yes" if {t.name for t in tokens} <= requestable else "some"))  # fmt: skip
    rows += [
        (token.name, token.kind, token.unit, token.description,
         "yes" if token.name in requestable else "no")
        for token in vocabulary.tokens if not token.band
    ]  # fmt: skip
    derived = tuple((item.name, item.token, item.unit, item.meaning) for item in DERIVED.values())
    also = "Also read and predicted by name, in these units."
    return [
        Section("vocabulary", f"{plural(len(vocabulary), 'token')} that a model reads or "
                "predicts. `infer --labels` and Model.predict take their names in any case.",
                ("token", "kind", "unit", "meaning", "predicted by the default model"),
                tuple(rows)),
        Section("derived labels", also, ("name", "from", "unit", "meaning"), derived),
    ]  # fmt: skip


def _excluded_from(value: int) -> str:
    flags = load_flags()
    if value & flags.good_params:
        return "good_params, good_mass_age"
    return "good_mass_age" if value & flags.good_mass_age else ""


def _job(what: str) -> Section:
    job: Job | TrainingJob
    try:
        job = load_job(what)
    except JobError:
        job = load_training_job(what)
    content = {item.name: _text(getattr(job, item.name)) for item in fields(job)[1:]}
    if isinstance(job, Job) and not job.labels:
        content["labels"] = "all that the model and the catalog have"
    rows = tuple(content.items())
    return Section(f"{job.name}, hash {job.hash[:8]}", "", ("field", "value"), rows)


def _is_release(path: Path) -> bool:
    """Return whether a TOML file declares a release: a job has a kind."""
    if path.suffix != ".toml" or not path.is_file():
        return False
    try:
        return "kind" not in tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return False


def _release(release: Release) -> list[Section]:
    """Return what a release states, and what it does not."""
    rows = tuple((name, _text(value)) for name, value in _flat(release.to_dict()))
    lines = release.unknown_lines()
    unknown = Section(
        "not known",
        "Lines for a file of your own, which is given as --release FILE (docs/releases.md).",
        ("lines", "what they state"),
        tuple(lines.items()),
    )
    text = f"A Gaia release, hash {release.hash[:8]}."
    sections = [Section(release.title, text, ("field", "value"), rows)]
    return [*sections, unknown] if lines else sections


def _model(what: str) -> list[Section]:
    from catalogproc.network.bundle import load_bundle

    bundle = load_bundle(what)
    facts = (
        ("hash", bundle.hash),
        ("folder", str(bundle.path)),
        ("reads", bundle.vocabulary.summary()),
        *((name, _text(value)) for name, value in asdict(bundle.shape).items()),
        *((name, _text(value)) for name, value in bundle.training.items()),
    )
    sections = [Section(bundle.name, bundle.description, ("field", "value"), facts)]
    card = bundle.path / "CARD.md"
    if card.is_file():
        sections.append(Section("model card", card.read_text(encoding="utf-8")))
    return sections


def _run(folder: Path) -> list[Section]:
    summary = folder / "summary.json"
    if not summary.is_file():
        return [
            Section(str(folder), "This run has not ended; run the same command again to resume.")
        ]
    content: dict[str, Any] = json.loads(summary.read_text(encoding="utf-8"))
    rows = tuple((name, _text(value)) for name, value in _flat(content))
    return [Section(str(folder), "A run of catalogproc.", ("field", "value"), rows)]


def _flat(content: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten nested tables: ``model.name``, ``model.hash``, …"""
    for name, value in content.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{path}{name}.")
        else:
            yield path + name, value


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return str(value) if isinstance(value, int) else f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    return str(value)
