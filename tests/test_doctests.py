"""Every example in a docstring runs, in a folder as a checkout with a finished run in it."""

from __future__ import annotations

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest
from support.catalogs import finished_run
from support.paths import ROOT

import catalogproc

SKIPPED = {"catalogproc.cluster.api"}
"""Modules all of whose examples are left out: a run starts workers, and other tests start it."""

WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "catalogproc").rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "examples").symlink_to(ROOT / "examples")
    finished_run(folder / "output" / "demo", rows=150)
    return folder


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_docstrings_hold(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    done = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS)
    assert done.failed == 0
    assert done.attempted > 0 or name in SKIPPED


def test_every_public_function_has_an_example() -> None:
    for name in set(catalogproc.__all__) - {"__version__", "CatalogprocError", "Job"}:
        doc = getattr(catalogproc, name).__doc__
        assert re.search(r"Examples\n\s*-+\n\s*>>> ", doc), name
