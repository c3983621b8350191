"""Sphinx: the site of docs/, built by ``make docs`` without a network."""

from __future__ import annotations

import os
import re
from pathlib import Path

import catalogproc

project = "catalogproc"
author = copyright = "the catalogproc authors"
version = release = catalogproc.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
root_doc = "index"
# README.md is the landing page as a file; index.md includes it.
exclude_patterns = ["README.md"]
templates_path: list[str] = []

# ---------------------------------------------------------------- pages

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]
# Notebooks are committed with their outputs; tests execute them.
nb_execution_mode = "off"

# Files that are pages of the site under another name. Such a page has a line with nothing but a
# link to the file, in place of which its text is put. As files, all links go to the files.
DOCS = Path(__file__).parent
ROOT = DOCS.parent
PAGES_OF_FILES = {
    DOCS / "README.md": "index.md",
    ROOT / "README.md": "site/project.md",
    ROOT / "CHANGELOG.md": "site/changelog.md",
    ROOT / "CONTRIBUTING.md": "site/contributing.md",
    ROOT / "deploy" / "README.md": "site/deploy.md",
    ROOT / "grids" / "README.md": "site/grids.md",
    ROOT / "examples" / "README.md": "site/examples.md",
    ROOT / "examples" / "giants" / "README.md": "site/giants.md",
    ROOT / "model" / "giants" / "CARD.md": "site/card.md",
}
# Titles of the pages that commands write, which have one table or experiment a heading.
TITLES = {
    "columns": "Columns of the catalog",
    "flags": "Flags",
    "evaluation": "Accuracy on real giants",
    "evaluation-simulated": "Experiments on simulated giants",
    "evaluation-spectra": "Experiments on field stars",
    "site/card": "The model's card",
    "site/deploy": "More machines",
    "site/grids": "Grids and tables that ship",
    "site/examples": "The examples",
    "site/giants": "The real giants",
    "site/project": "Overview of the project",
}
_LINK = re.compile(r"\]\(([^()\s#:]+)(#[^()\s]*)?\)")
_LINE = re.compile(r"^\[[^\]]*\]\(([^()\s#:]+)\)$", re.MULTILINE)


def page_text(text: str, name: str) -> str:
    """Return the text of a page of the site.

    Parameters
    ----------
    text
        What its file in docs/ holds.
    name
        Its name, as ``site/card``.
    """
    page = DOCS / f"{name}.md"

    def file_text(found: re.Match[str]) -> str:
        source = (page.parent / found[1]).resolve()
        return relinked(source.read_text(), source, page)

    stands_for_file = f"{name}.md" in PAGES_OF_FILES.values()
    text = _LINE.sub(file_text, text) if stands_for_file else relinked(text, page, page)
    return one_title(text, TITLES.get(name))


def relinked(text: str, source: Path, page: Path) -> str:
    """Return the text of a file as that of a page, with links that lead to the same files."""

    def link(found: re.Match[str]) -> str:
        target = (source.parent / found[1]).resolve()
        if not target.exists():
            return found[0]
        target = DOCS / PAGES_OF_FILES[target] if target in PAGES_OF_FILES else target
        return f"]({os.path.relpath(target, page.parent)}{found[2] or ''})"

    return _LINK.sub(link, text)


def one_title(text: str, title: str | None) -> str:
    """Return a page with one heading of the first level: ``title``, or its first one."""
    lowered, seen, code = False, title is not None, False
    lines = [f"# {title}\n\n"] if title else []
    for line in text.splitlines(keepends=True):
        if line.startswith("```"):
            code = not code
        elif line.startswith("#") and not code:
            lowered = lowered or (seen and line.startswith("# "))
            seen = True
            line = f"#{line}" if lowered else line
        lines.append(line)
    return "".join(lines)


def setup(app: object) -> None:
    """Read every page through :func:`page_text`."""

    def read(_: object, name: str, text: list[str]) -> None:
        if (DOCS / f"{name}.md").is_file():
            text[0] = page_text(text[0], name)

    app.connect("source-read", read)  # type: ignore[attr-defined]


# ---------------------------------------------------------------- API reference

napoleon_google_docstring = False
napoleon_use_rtype = True
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
add_module_names = False

# ---------------------------------------------------------------- HTML

html_theme = "furo"
html_title = f"catalogproc {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
