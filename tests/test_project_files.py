"""Workflows, hooks and environments agree with pyproject.toml, Makefile, constraints.txt."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSIONS = [
    text.rpartition(" ")[2]
    for text in PROJECT["classifiers"]
    if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", text)
]


def pinned(name: str) -> str:
    found = re.search(rf"^{name}==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found is not None, name
    return found[1]


def loaded(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def test_the_workflow_runs_make_targets_on_every_python_that_is_promised() -> None:
    jobs = loaded(".github/workflows/ci.yml")["jobs"]
    assert jobs["tests"]["strategy"]["matrix"]["python"] == VERSIONS == ["3.11", "3.12", "3.13"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    made = {word for text in commands for word in re.findall(r"^make (\S+)", text, re.MULTILINE)}
    assert made == {"lint", "test", "run", "wheel", "docs"}
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert made <= targets
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) <= targets


def test_hooks_have_the_versions_of_the_constraints() -> None:
    repos = {repo["repo"]: repo for repo in loaded(".pre-commit-config.yaml")["repos"]}
    ruff = repos["https://github.com/astral-sh/ruff-pre-commit"]
    assert ruff["rev"] == f"v{pinned('ruff')}"


def test_the_environment_of_conda_is_that_of_make() -> None:
    *plain, pip = loaded("environment.yml")["dependencies"]
    assert f"python {PROJECT['requires-python']},<3.14" in plain
    assert pip["pip"][1:] == ["--constraint constraints.txt", "--editable ."]


@pytest.mark.parametrize("path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml")))
def test_templates_of_issues_can_be_filled_in(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    assert {"name", "description", "body"} <= set(form)
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(set(ids)) == len(ids) >= 2


def made(tmp_path: Path, *words: str, gpu: bool = False, system: str = "Linux") -> str:
    """Return the commands of ``make run`` on a machine of this kind, which are not run."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "sed", "make", "python3"):
        (tools / name).symlink_to(shutil.which(name) or "")
    (tools / "uname").write_text(f"#!/bin/sh\necho {system}\n")
    (tools / "nvidia-smi").write_text("#!/bin/sh\n")
    for name in ("uname", "nvidia-smi")[: 2 if gpu else 1]:
        (tools / name).chmod(0o755)
    done = subprocess.run(
        ["make", "-n", "run", f"VENV={tmp_path}/none", *words],
        capture_output=True, text=True, cwd=ROOT, env={"PATH": str(tools)}, check=True,
    )  # fmt: skip
    subprocess.run(["sh", "-n"], input=done.stdout, text=True, check=True)
    return done.stdout


def test_without_a_gpu_torch_is_the_one_for_the_cpu(tmp_path: Path) -> None:
    commands = made(tmp_path)
    (line,) = [line for line in commands.splitlines() if "--index-url" in line]
    index = '"https://download.pytorch.org/whl/cpu"'
    assert line.startswith(f"test -z {index} || ")
    assert f'--index-url {index} "torch=={pinned("torch")}"' in line
    assert "  || echo" in commands  # where there is none: PyPI's


@pytest.mark.parametrize(
    ("words", "gpu", "system"),
    [((), True, "Linux"), ((), False, "Darwin"), (("TORCH_INDEX=",), False, "Linux")],
)
def test_else_torch_is_that_of_pypi(
    tmp_path: Path, words: tuple[str, ...], gpu: bool, system: str
) -> None:
    commands = made(tmp_path, *words, gpu=gpu, system=system)
    assert 'test -z "" ||' in commands
