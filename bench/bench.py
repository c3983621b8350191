"""Run the families, print the tables, write bench.json."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import cost
from bench.kit import Kit
from bench.machine import describe
from bench.measure import Absent, Noted, Row

FAMILIES = (
    "matrix", "predictor", "precision", "propagation", "parallax", "stages", "run", "start",
    "conversion", "simulation", "learning", "gpu",
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A measured row. ``value`` is None where it was not measured, for the reason in ``note``;
    ``met`` is None where there is no target or no value."""

    family: str
    title: str
    row: str
    value: float | None
    unit: str
    target: str
    met: bool | None
    note: str


def run_family(name: str, kit: Kit) -> list[Figure]:
    """Return the figures of a family. Raise ValueError unless each of its rows has one."""
    family = import_module(f"bench.{name}")
    found = family.measure(kit)
    declared = [row.name for row in family.ROWS]
    if sorted(found) != sorted(declared):
        raise ValueError(
            f"{name}: rows {sorted({*found} ^ {*declared})} are declared or measured only"
        )
    return [_figure(name, family.TITLE, row, found[row.name]) for row in family.ROWS]


def run(families: Sequence[str], kit: Kit, console: Console | None = None) -> dict[str, Any]:
    """Run families and return the content of bench.json.

    Parameters
    ----------
    families
        Names, of FAMILIES.
    kit
        Model, stars and files.
    console
        Where progress is shown.
    """
    unknown = sorted(set(families) - set(FAMILIES))
    if unknown:
        raise SystemExit(f"unknown families: {', '.join(unknown)}; known: {', '.join(FAMILIES)}")
    facts = describe()
    model = {"name": kit.bundle.name, "hash": kit.bundle.hash, **kit.bundle.shape.to_dict()}
    figures: list[Figure] = []
    took: dict[str, float] = {}
    for name in families:
        if console is not None:
            console.print(f"{name} …", style="dim")
        begun = time.perf_counter()
        figures += run_family(name, kit)
        took[name] = round(time.perf_counter() - begun, 1)
    rates = {(figure.family, figure.row): figure.value for figure in figures}
    return facts | {
        "model": model,
        "sizes": asdict(kit.sizes),
        "rows": [asdict(figure) for figure in figures],
        "cost": cost.report(rates),
        "seconds": took,
    }


def write(report: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def tables(report: dict[str, Any]) -> list[Table]:
    """Return the tables of figures and of costs, for a terminal."""
    table = Table(title=headline(report), title_justify="left")
    for name, justify in zip(
        HEADER, ("left", "right", "left", "right", "left", "left"), strict=True
    ):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    family = None
    for row in report["rows"]:
        if row["family"] != family:
            family = row["family"]
            table.add_section()
            table.add_row(f"[bold]{row['title']}[/bold]")
        style = {True: "green", False: "red", None: ""}[row["met"]]
        table.add_row(*cells(row), style=style)
    bill = Table(title="all spectra of a release", title_justify="left")
    header = bill_header(report)
    for name in header:
        bill.add_column(name, justify="right" if name in header[1:-2] else "left")
    for line in bill_rows(report):
        bill.add_row(*line)
    return [table, bill]


def markdown(report: dict[str, Any]) -> str:
    """Return the same two tables as Markdown."""
    rows = [[f"{row['title']}: {cells(row)[0]}", *cells(row)[1:]] for row in report["rows"]]
    slowest = [f"- {setup}: {limit}" for setup, limit in report["cost"]["bottleneck"].items()]
    return "\n".join(
        [
            headline(report), "", *_grid(HEADER, rows), "",
            "All spectra of a release:", "", *_grid(bill_header(report), bill_rows(report)), "",
            "The slowest part of a run:", "", *slowest, "",
        ]
    )  # fmt: skip


HEADER = ("row", "figure", "unit", "target", "met", "note")


def headline(report: dict[str, Any]) -> str:
    """Return one line with date, commit, machine, model and the load at the start."""
    machine, versions = report["machine"], report["versions"]
    commit = report["commit"] + (" with changes" if report["changed_since"] else "")
    return (
        f"{report['date'][:10]}, catalogproc {versions['catalogproc']} at {commit}; "
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{machine['instructions']}, {machine['memory_gib']:g} GiB, "
        f"{machine['gpu'] or 'no GPU'}; torch {versions['torch']}; "
        f"model: {report['model']['name']}; load at the start {machine['load']:g}"
    )


def cells(row: dict[str, Any]) -> list[str]:
    """Return a row as text."""
    met = {True: "met", False: "not met", None: ""}[row["met"]]
    return [row["row"], number(row["value"]), row["unit"], row["target"], met, row["note"]]


def bill_header(report: dict[str, Any]) -> list[str]:
    """Return the names of the columns of the cost table."""
    stars = report["cost"]["stars"].items()
    return ["item", *(f"{release}, {n / 1e6:,.0f} million" for release, n in stars), "unit", "from"]


def bill_rows(report: dict[str, Any]) -> list[list[str]]:
    """Return the rows of the cost table as text."""
    return [
        [
            item["name"],
            *(number(value) or "not measured" for value in item["values"].values()),
            item["unit"],
            item["from_what"],
        ]
        for item in report["cost"]["bill"]
    ]


def number(value: float | None) -> str:
    """Format a number with three significant digits, or as an integer from 100."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _figure(name: str, title: str, row: Row, found: float | Noted | Absent) -> Figure:
    target = ""
    if row.target is not None:
        target = f"{'≤' if row.target.at_most else '≥'} {number(row.target.limit)}"
    if isinstance(found, Absent):
        return Figure(name, title, row.name, None, row.unit, target, None, found.reason)
    noted = found if isinstance(found, Noted) else Noted(found, "")
    value = float(noted.value)
    met = None if row.target is None else row.target.met(value)
    return Figure(name, title, row.name, value, row.unit, target, met, noted.note)


def _grid(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    lines = [list(header), *map(list, rows)]
    text = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return [text[0], "|" + "---|" * len(lines[0]), *text[1:]]
