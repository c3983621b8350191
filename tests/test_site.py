"""The site of docs/: every page is in it, links lead somewhere, public names are explained."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT

import catalogproc
from catalogproc import errors

DOCS = ROOT / "docs"
FILES = [*DOCS.rglob("*.md"), *(ROOT / name for name in ("README.md", "CHANGELOG.md"))]
FILES += [ROOT / "CONTRIBUTING.md", *(ROOT / "model").glob("*/CARD.md"), ROOT / "grids/README.md"]


@pytest.fixture(scope="module")
def conf() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "conf.py"))


def prose(path: Path) -> str:
    """Return a page without its code."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", lambda found: re.sub(r"[\[\]()#]", "", found[0]), text)


def slugs(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site name them."""
    headings = re.findall(r"^#+ (.*)$", prose(path), flags=re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }


def listed_pages() -> Iterator[str]:
    for block in re.findall(r"```{toctree}\n(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL):
        for line in block.splitlines():
            if line and not line.startswith(":"):
                yield re.sub(r".*<(.*)>", r"\1", line)


def test_every_page_is_in_the_table_of_contents_once() -> None:
    """A page that is not: add it to docs/index.md, and to the table in docs/README.md."""
    pages = [p.relative_to(DOCS).with_suffix("") for p in DOCS.rglob("*.md")]
    notebooks = [p.relative_to(DOCS).with_suffix("") for p in DOCS.rglob("*.ipynb")]
    wanted = {p.as_posix() for p in pages + notebooks} - {"index", "README"}
    listed = list(listed_pages())
    assert sorted(listed) == sorted(wanted)
    landing = (DOCS / "README.md").read_text()
    for name in wanted:
        if not name.startswith("site/"):
            assert re.search(rf"\({name}\.(md|ipynb)", landing), name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_relative_links_lead_to_files_and_headings(path: Path) -> None:
    for target in re.findall(r"\]\(([^()\s]+)\)", prose(path)):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in slugs(file), target


def test_every_public_name_and_every_error_is_in_the_reference() -> None:
    page = (DOCS / "api.md").read_text()
    documented = set(re.findall(r"auto(?:function|class):: catalogproc\.(\w+)", page))
    assert documented >= set(catalogproc.__all__) - {"__version__", "CatalogprocError"}
    kinds = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.CatalogprocError)
    }
    members = re.search(r"automodule:: catalogproc\.errors\n\s+:members:([^:`]*)", page)
    assert members is not None
    assert set(re.findall(r"\w+", members[1])) == kinds


def test_links_of_pages_and_of_files_lead_to_the_same(conf: dict[str, Any]) -> None:
    page_text: Callable[[str, str], str] = conf["page_text"]
    assert page_text("[x](../CHANGELOG.md#input)", "using") == "[x](site/changelog.md#input)"
    assert page_text("[x](flags.md)", "using") == "[x](flags.md)"
    assert page_text("[x](../LICENSE)", "using") == "[x](../LICENSE)"
    changelog = page_text("[CHANGELOG.md](../../CHANGELOG.md)", "site/changelog")
    assert changelog.startswith("# Changelog")
    assert "](../inputs.md)" in changelog
    assert "](docs/" not in changelog


def test_a_page_has_one_title(conf: dict[str, Any]) -> None:
    one_title: Callable[[str, str | None], str] = conf["one_title"]
    text = "# a\n\n```\n# code\n```\n## b\n# c\n## d\n"
    assert one_title(text, None) == "# a\n\n```\n# code\n```\n## b\n## c\n### d\n"
    titled = "# t\n\n## a\n\n```\n# code\n```\n### b\n## c\n### d\n"
    assert one_title(text, "t") == titled
    assert one_title("words\n\n## b\n", "t") == "# t\n\nwords\n\n## b\n"


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    for name in ("sphinx", "myst_nb", "furo", "sphinx_copybutton"):
        pytest.importorskip(name, reason="not installed: pip install catalogproc[docs]")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html",
         str(DOCS), str(tmp_path)],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "load_model" in (tmp_path / "api.html").read_text()
    # Nothing is loaded from the network.
    for page in tmp_path.rglob("*.html"):
        loaded = re.findall(r"""<(?:script|link|img)[^>]*(?:src|href)="(https?:[^"]*)""",
                            page.read_text())  # fmt: skip
        assert not loaded, page
