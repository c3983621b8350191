"""The section of docs/performance.md on a GPU, from the files that came back from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import gpu
from bench.bench import number
from bench.gpu_pieces import LIST
from bench.gpu_training import STAGES
from catalogproc.errors import InputError
from catalogproc.io.atomic import write_atomic

TITLE = "## On a GPU"
NOT_MEASURED = "not measured"
MODELS = {"rows-full.json": "full size", "rows-default.json": "the model that ships"}
CHECKS = ("receipts name the GPU", "a second worker is refused", "two workers share the GPU")


def section(results: Mapping[str, Any]) -> str:
    """Return the section as Markdown.

    Parameters
    ----------
    results
        Content of the JSON files of `make gpu` by name; what is missing was not measured.
    """
    return "\n".join([TITLE, "", *_lines(results)]).rstrip() + "\n"


def replace_section(page: Path, text: str) -> None:
    """Replace the section of a page.

    Parameters
    ----------
    page
        A Markdown file that has the section.
    text
        The section, which begins with its title.

    Raises
    ------
    InputError
        The page has no such section.
    """
    wanted = text.partition("\n")[0]
    before, title, after = page.read_text(encoding="utf-8").partition(f"{wanted}\n")
    if not title:
        raise InputError("the page has no section for the figures", wanted=wanted, where=page)
    _, heading, rest = after.partition("\n## ")
    end = f"\n## {rest}" if heading else ""
    write_atomic(page, f"{before}{text}{end}".encode())


def _lines(results: Mapping[str, Any]) -> Iterator[str]:
    found = {row["name"]: row for row in results.get("run.json", ())}
    yield f"{_device(results)}. `make gpu` measures, `make gpu-finish` writes this section."
    yield ""
    yield f"| what | target | {' | '.join(MODELS.values())} |"
    yield "|---|---|---|---|"
    for row in gpu.ROWS:
        target = "" if row.target is None else f"{number(row.target.limit)} {row.unit}"
        cells = [_cell(results.get(name), row.name, row.unit) for name in MODELS]
        yield f"| {row.name} | {target} | {' | '.join(cells)} |"
    yield ""
    yield "| check | found |"
    yield "|---|---|"
    yield f"| tests/gpu | {_ended(found.get('tests'))} |"
    for name in CHECKS:
        yield f"| {name} | {_check(results.get('workers.json', {}).get(name))} |"
    yield ""
    yield "| training, complete published network | steps | stars/s | loss | validation |"
    yield "|---|---|---|---|---|"
    done = {row["job"]: row for row in _stages(results.get(LIST, {}))}
    for stage in STAGES:
        yield _stage(stage.job, done.get(stage.job))


def _device(results: Mapping[str, Any]) -> str:
    for name in MODELS:
        machine = results.get(name, {}).get("machine", {})
        if machine.get("gpu"):
            versions = results[name]["versions"]
            return (
                f"{results[name]['date'][:10]}, {machine['gpu']}, {machine['cores']} cores, "
                f"torch {versions['torch']}"
            )
    return "No GPU was at hand so far"


def _cell(report: Mapping[str, Any] | None, row: str, unit: str) -> str:
    for one in (report or {}).get("rows", ()):
        if one["row"] == row and one["value"] is not None:
            return f"{number(one['value'])} {unit}"
    return NOT_MEASURED


def _ended(outcome: Mapping[str, Any] | None) -> str:
    if outcome is None:
        return NOT_MEASURED
    lines = outcome["output"].strip().splitlines()
    return f"{outcome['ended']}: {lines[-1]}" if lines else str(outcome["ended"])


def _check(check: Mapping[str, Any] | None) -> str:
    if check is None or check["passed"] is None:
        return NOT_MEASURED
    return "yes" if check["passed"] else f"no: {check['found']}"


def _stages(listed: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the stages that came back: those that ended, and that of the last pieces."""
    return [listed["now"], *listed["stages"]] if listed else []


def _stage(job: str, row: Mapping[str, Any] | None) -> str:
    if row is None or row["device"] == "cpu":
        return f"| {job} | {NOT_MEASURED} | | | |"
    validation = f"{row['validation_loss']:.3f}" if "validation_loss" in row else ""
    return (
        f"| {job} | {row['steps']:,} of {row['batch']:,} | {number(row['stars_per_second'])} "
        f"| {row['loss']:.3f} | {validation} |"
    )
