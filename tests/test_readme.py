"""README: what it claims is what the project says of itself, and its numbers are those of docs/."""

from __future__ import annotations

import re
import tomllib

import pytest
from support.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BADGES = ROOT / "docs/images/badges"


def test_badges_are_true() -> None:
    versions = [
        name.rpartition(" ")[2]
        for name in PROJECT["classifiers"]
        if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", name)
    ]
    assert f": {PROJECT['license']}<" in (BADGES / "licence.svg").read_text()
    assert f": {' | '.join(versions)}<" in (BADGES / "python.svg").read_text()
    jobs = re.search(r"tests: (.*)</title>", (BADGES / "tests.svg").read_text())
    assert jobs is not None
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    for job in jobs[1].split(", "):
        assert re.search(rf"^  {job}:$", workflow, re.MULTILINE), job


def test_every_number_of_the_table_of_accuracy_is_in_the_page_of_the_evaluation() -> None:
    """Those of the same quantity and method: README is to be changed where the page changes."""
    table = README.split("## How accurate it is")[1].split("##")[0]
    (header, _, *rows) = [line for line in table.splitlines() if line.startswith("|")]
    quantities = [name.strip() for name in header.strip("|").split("|")][1:]
    page = (ROOT / "docs/evaluation.md").read_text().split("**What is wanted**")[0]
    blocks = re.split(r"^\| (?=\S)", page, flags=re.MULTILINE)
    checked = 0
    for row in rows:
        for quantity, cell in zip(quantities, row.strip("|").split("|")[1:], strict=True):
            number = re.match(r"\s*([\d.]+)", cell)
            if number is None:
                continue
            block = next(part for part in blocks if part.startswith(quantity))
            assert re.search(rf"(?<![\d.]){re.escape(number[1])}0*(?!\d)", block), (quantity, cell)
            checked += 1
    assert checked > 25


def test_the_ten_rows_are_of_the_example() -> None:
    import pyarrow.parquet as pq

    known = (
        pq.read_table(ROOT / "examples/giants/apogee.parquet").to_pandas().set_index("source_id")
    )
    rows = re.findall(r"^\| (\d{15,}) \| (\d+) \| (-?[\d.]+) \|", README, re.MULTILINE)
    assert len(rows) == 10
    for source_id, teff, logg in rows:
        star = known.loc[int(source_id)]
        assert float(teff) == pytest.approx(star.teff, abs=300)
        assert float(logg) == pytest.approx(star.logg, abs=0.8)


def test_the_pictures_are_small() -> None:
    for path in (ROOT / "docs/images").rglob("*.*"):
        assert path.stat().st_size < 300_000, path
