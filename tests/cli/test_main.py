"""The command line as a user types it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import EXAMPLES

from catalogproc import __version__
from catalogproc.cli.main import _spread
from catalogproc.contract import load_contract
from catalogproc.flags import load_flags, load_input_flags

pytestmark = pytest.mark.timeout(900)
"""Programs that are started, also where others use the machine."""


def catalogproc(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "catalogproc", *words]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_glob_that_the_shell_expanded_is_taken_whole() -> None:
    words = [
        "run",
        "--input",
        "a",
        "b",
        "--workers",
        "2",
        "--gaia-source",
        "c",
        "d",
        "--output",
        "e",
    ]
    assert _spread(words) == [
        *("run", "--input", "a", "--input", "b", "--workers", "2"),
        *("--gaia-source", "c", "--gaia-source", "d", "--output", "e"),
    ]


def processor_seconds(*words: str) -> tuple[float, str]:
    """Return the processor time of a command, which other programs do not change, and its words."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = catalogproc(*words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime), done.stdout


@pytest.mark.alone
def test_help_answers_at_once() -> None:
    found = [processor_seconds("--help") for _ in range(5)]
    for verb in ("run", "check", "plan", "verify", "export", "convert", "describe", "train"):
        assert verb in found[0][1]
    assert min(seconds for seconds, _ in found) < 0.5


def test_version() -> None:
    assert catalogproc("--version").stdout.strip() == f"catalogproc {__version__}"


def test_describe_prints_every_column_and_flag() -> None:
    catalog = catalogproc("describe", "catalog")
    assert all(name in catalog.stdout for name in load_contract("catalog").names)
    flags = catalogproc("describe", "flags", "--json")
    for section, declared in zip(
        json.loads(flags.stdout), (load_flags(), load_input_flags()), strict=True
    ):
        assert [row[2] for row in section["rows"]] == [flag.name for flag in declared.flags]


@pytest.mark.parametrize("what", ["xp_continuous", "demo", "gaia-dr3-giants", "default", "dr3"])
def test_describe_knows(what: str) -> None:
    done = catalogproc("describe", what)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 5


def test_describe_says_what_is_not_known_of_a_release(tmp_path: Path) -> None:
    sections = json.loads(catalogproc("describe", "dr4", "--json").stdout)
    assert [section["title"] for section in sections] == ["Gaia DR4", "not known"]
    lines = {row[0]: row[1] for row in sections[1]["rows"]}
    assert "[bands.bp] basis_function_id" in lines
    own = tmp_path / "own.toml"
    own.write_text('version = 1\nname = "dr4"\nlike = "dr4"\n[bands.bp]\nbasis_function_id = 71\n')
    sections = json.loads(catalogproc("describe", str(own), "--json").stdout)
    assert ["bands.bp.basis_function_id", "71"] in sections[0]["rows"]
    assert lines.keys() - {row[0] for row in sections[1]["rows"]} == {
        "[bands.bp] basis_function_id"
    }


def test_what_is_refused_exits_with_2_and_no_traceback(tmp_path: Path) -> None:
    for words in (
        ("describe", "nonsense"),
        ("run", "--input", str(tmp_path / "absent*.parquet"), "--output", str(tmp_path / "out")),
        ("run", "--output", str(tmp_path / "out")),
        ("plan", "--input", "x", "--output", "y", "--job", "nonsense"),
    ):
        done = catalogproc(*words)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr
    assert not (tmp_path / "out").exists()


def test_quiet_json_and_a_dry_run(tmp_path: Path) -> None:
    source = str(EXAMPLES / "xp_continuous_000.parquet")
    out = str(tmp_path / "out")
    words = ("run", "--input", source, "--output", out, "--workers", "1", "--model", "tiny")

    done = catalogproc(*words, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    planned = json.loads(done.stdout)
    assert planned["rows"] == planned["rows_todo"] == 500
    assert [chunk["done"] for chunk in planned["chunks"]] == [False]
    assert not Path(out).exists()
    done = catalogproc(*words, "--dry-run")
    assert "1 file of spectra, 500 stars, in 1 chunk; 0 done, 1 to do" in done.stdout

    done = catalogproc(*words, "--quiet")
    assert done.returncode == 0
    assert done.stdout == f"{out}: 500 stars written, 0 rejected\n"
    done = catalogproc(*words, "--json")
    account = json.loads(done.stdout)
    assert (account["rows_written"], account["chunks_run"], account["exit_code"]) == (500, 0, 0)

    verified = json.loads(catalogproc("verify", out, "--json").stdout)
    assert verified["rows_read"] == verified["rows_written"] == 500
    assert verified["run_id"] == planned["run_id"]
    # What was asked for is said all the same.
    assert "500 rows read" in catalogproc("-q", "verify", out).stdout


def test_errors_are_said_however_quiet(tmp_path: Path) -> None:
    done = catalogproc("--quiet", "verify", str(tmp_path))
    assert done.returncode == 2
    assert "error:" in done.stderr


def test_quiet_stands_anywhere() -> None:
    assert _spread(["run", "--input", "a", "-q", "b"]) == [
        "--quiet", "run", "--input", "a", "--input", "b",
    ]  # fmt: skip


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_can_complete(shell: str) -> None:
    # Where no shell is found above the process, as under a batch system, it is named.
    named = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "catalogproc", "--show-completion", shell]
    shown = subprocess.run(command, capture_output=True, text=True, env=named)
    assert "catalogproc" in shown.stdout, shown.stderr
    words = {"COMP_WORDS": "catalogproc ver", "COMP_CWORD": "1"}
    ask = {"_CATALOGPROC_COMPLETE": "complete_bash"} | words
    command = [sys.executable, "-c", "from catalogproc.cli.main import main; main()"]
    told = subprocess.run(command, capture_output=True, text=True, env=os.environ | ask)
    assert told.stdout.split() == ["verify"]
