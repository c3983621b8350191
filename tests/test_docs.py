"""The documentation: printed tables equal schemas/, commands and Python are run, names exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pytest
from support.catalogs import catalog_table, finished_run
from support.paths import ROOT

import catalogproc
from catalogproc.export.describe import describe
from catalogproc.export.export import FORMATS
from catalogproc.flags import load_flags, load_input_flags
from catalogproc.readers.column_lookup import SUFFIXES as ENDINGS
from catalogproc.readers.datalink import PRODUCTS
from catalogproc.readers.formats import SUFFIXES
from catalogproc.readers.formats.recognise import NOT_READ
from catalogproc.readers.text_values import MISSING_WORDS, is_missing
from catalogproc.readers.units import COUNTED

DOCS = ROOT / "docs"
PAGES = {"columns": ("catalog",), "flags": ("flags",), "inputs": ("xp_continuous", "gaia_source")}
OPTIONAL = ("polars", "duckdb", "lsdb")


@pytest.mark.parametrize("page", PAGES)
def test_tables_are_those_of_the_schemas(page: str) -> None:
    """A page is the tables alone; inputs.md ends with them.

    To update: print each with ``catalogproc describe WHAT --markdown``.
    """
    sections = [section for what in PAGES[page] for section in describe(what)]
    tables = "\n".join(section.markdown() for section in sections).rstrip() + "\n"
    text = (DOCS / f"{page}.md").read_text()
    assert text.endswith(f"\n{tables}") if page == "inputs" else text == tables


def test_every_name_of_an_element_column_in_the_page_is_read(tmp_path: Path) -> None:
    text = (DOCS / "inputs.md").read_text()
    names = {
        array: re.findall(r"`(\w+)k`", row)
        for array, row in re.findall(r"^\| `bp_(\w+)` \|(.*_k`.*)\|$", text, re.MULTILINE)
    }
    assert {array: len(found) >= 4 for array, found in names.items()} == {
        "coefficients": True, "coefficient_errors": True, "coefficient_correlations": True,
    }  # fmt: skip
    for turn in range(max(map(len, names.values()))):
        columns = {"source_id": 1}
        for array, found in names.items():
            for k in range(1 if array == "coefficient_correlations" else 2):
                name = f"{found[turn % len(found)]}{('{}', '[{}]', '({})', '0{}')[turn % 4]}"
                for band in ("bp", "rp"):
                    columns[name.replace("bp", band).format(k)] = k + 1
        path = tmp_path / f"{turn}.csv"
        path.write_text(f"{','.join(columns)}\n{','.join(map(str, columns.values()))}\n")
        (batch,) = catalogproc.read_spectra(path, correlations=True)
        assert batch.column("bp_coefficients").to_pylist() == [[1, 2]], columns
        assert batch.column("rp_coefficient_errors").to_pylist() == [[1, 2]], columns
        assert batch.column("bp_coefficient_correlations").to_pylist() == [[1]], columns


WORDS_OF_FORMATS = {
    "encrypted Parquet": "encrypted Parquet", "a FITS extension without its file": "FITS extension",
    "a web page": "web page", "a pointer of Git LFS, not the file itself": "Git LFS",
    "a pointer of git-annex, not the file itself": "git-annex", "Avro": "Avro", "HDF5": "HDF5",
    "Arrow IPC (Feather)": "Feather", "an Arrow IPC stream": "streams", "ORC": "ORC",
    "Feather, version 1": "Feather", "an array of NumPy (.npy)": "`.npy`", "JSON": "JSON",
    "a SQLite database": "SQLite", "an Excel workbook (.xls)": "Excel", "a PDF document": "PDF",
    "bzip2": "bzip2", "xz": "xz", "gzip inside of gzip": "gzip inside gzip", "zstd": "zstd",
    "a 7z archive": "7z", "a RAR archive": "RAR", "arrays of NumPy (.npz)": "`.npz`",
    "an Excel workbook (.xlsx)": "Excel", "an OpenDocument sheet": "OpenDocument",
    "a file of PyTorch": "PyTorch", "Zarr": "Zarr", "a ZIP archive": "ZIP archive",
}  # fmt: skip


def test_formats_endings_and_words_of_the_page_on_inputs_are_those_of_the_readers() -> None:
    """Both ways: what is read stands in the page, and what stands there is read."""
    text = (DOCS / "inputs.md").read_text()
    formats = text.partition("## Formats")[2].partition("## Layout")[0]
    table = "".join(line for line in formats.splitlines() if line.startswith("|"))
    assert set(re.findall(r"`(\.\w+)`", table)) - {".gz"} == set(SUFFIXES)
    names = text.partition("## Names of columns")[2].partition("## Identifiers")[0]
    assert tuple(re.findall(r"`(_\w+)`", names.partition("in this order")[0])) == ENDINGS
    missing = text.partition("## Missing values")[2].partition("An identifier")[0]
    listed = re.findall(r"`([^`]+)`", missing)
    assert listed
    assert is_missing(pa.array([*listed, ""])).to_pylist() == [True] * (len(listed) + 1)
    assert set(listed) == {word for word in MISSING_WORDS if word}
    units = text.partition("- Fluxes:")[2].partition("are counts")[0]
    assert set(re.findall(r"`(\w+)`", units)) == set(COUNTED)
    assert set(WORDS_OF_FORMATS) == set(NOT_READ)
    refused = " ".join(formats.partition("These are refused by name")[2].split())
    for kind, word in WORDS_OF_FORMATS.items():
        assert word in refused, kind
    for product in PRODUCTS:
        assert product in text


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / f"{page}.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder as the pages assume it: output/demo is a run."""
    folder = tmp_path_factory.mktemp("docs")
    tables = [catalog_table(200, seed) for seed in range(2)]
    finished_run(folder / "output" / "demo", files=1, chunks=2, tables=tables)
    return folder


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command)
    assert words[0] == "catalogproc"
    return subprocess.run(
        [sys.executable, "-m", "catalogproc", *words[1:]],
        capture_output=True, text=True, timeout=240, cwd=folder,
    )  # fmt: skip


@pytest.mark.parametrize("page", ["loading", "using"])
def test_commands_of_the_pages_run(page: str, place: Path) -> None:
    commands = [line for block in blocks(page, "sh") for line in block.splitlines()]
    assert commands
    for command in commands:
        done = run(f"{command} --overwrite", place)
        assert done.returncode == 0, command + done.stderr
        wanted = "selection function" if "--selection" in command else "stars written"
        assert wanted in done.stdout


def test_the_commands_of_the_quickstart_exist() -> None:
    known = subprocess.run(
        [sys.executable, "-m", "catalogproc", "--help"], capture_output=True, text=True
    ).stdout
    verbs = re.findall(r"^catalogproc (\w+)", "\n".join(blocks("quickstart", "sh")), re.MULTILINE)
    assert {"run", "verify", "report", "describe", "export", "explain"} <= set(verbs)
    for verb in verbs:
        assert re.search(rf"^\W*{verb}\s", known, re.MULTILINE), verb


@pytest.mark.parametrize("page", ["quickstart", "loading"])
def test_python_of_the_pages_runs(
    page: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    for format, suffix in (("votable", "vot"), ("parquet", "parquet")):
        if not (place / f"giants.{suffix}").exists():
            catalogproc.export_catalog(place / "output/demo", format, place / f"giants.{suffix}")
    known: dict[str, object] = {}
    ran = 0
    for block in blocks(page, "python"):
        # LSDB prints many warnings: tests/export/test_hats.py runs it in a separate process.
        needs = [name for name in OPTIONAL if f"import {name}" in block]
        if "lsdb" in needs or any(find_spec(name) is None for name in needs):
            continue
        exec(compile(block, f"docs/{page}.md", "exec"), known)
        ran += 1
    assert ran >= 2
    assert capsys.readouterr().out


def test_formats_public_names_and_flags_of_the_pages_exist() -> None:
    text = "\n".join(path.read_text() for path in DOCS.glob("*.md"))
    for format in FORMATS:
        assert f"`{format}`" in text, format
    for name in catalogproc.__all__:
        assert f"`{name}`" in text, name
    words = set(re.findall(r"`([A-Z][A-Z_]{3,})`", (DOCS / "using.md").read_text()))
    assert words <= {flag.name for flag in (*load_flags().flags, *load_input_flags().flags)}


def test_the_tests_that_the_page_of_faults_names_exist() -> None:
    text = (DOCS / "faults.md").read_text()
    paths = {path.name: path for path in (ROOT / "tests").rglob("test_*.py")}
    named = re.findall(
        r"`(test_\w+\.py)`(?:: ([\w ,-]+?)(?=[|;(]|, \*slow|$))?", text, re.MULTILINE
    )
    assert len(named) > 20
    for file, words in named:
        assert file in paths, file
        tests = " ".join(re.findall(r"def (test_\w+)", paths[file].read_text()))
        assert words.strip().lower().replace(",", "").replace(" ", "_") in tests, (file, words)
