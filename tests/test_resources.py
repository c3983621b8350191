"""What ships is found, and what is not installed is named."""

from __future__ import annotations

import subprocess
import sys

import pytest

from catalogproc.errors import Refusal
from catalogproc.resources import optional_module, shipped


def test_a_missing_library_names_the_extra_that_brings_it() -> None:
    with pytest.raises(Refusal) as caught:
        optional_module("a_library_that_nobody_has", "train")
    assert "pip install 'catalogproc[train]'" in str(caught.value)


def test_a_command_without_its_extra_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['dust_extinction'] = None\n"
        "from catalogproc.cli.main import main\n"
        "sys.argv = ['catalogproc', 'simulate', '--stars', '2', '--seed', '1', '--output', 'x']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "dust_extinction" in done.stderr
    assert "catalogproc[train]" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_kind_of_shipped_files_is_refused() -> None:
    with pytest.raises(Refusal, match="unknown kind"):
        shipped("spells")
