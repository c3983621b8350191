"""The wheel holds what the checkout holds: no module forgotten, none left over."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest
from support.paths import ROOT

DATA = ("schemas", "model", "jobs", "grids")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("wheel")
    # A copy of what git tracks: a stale build/ beside the sources would ship deleted modules.
    tracked = _tracked()
    for name in tracked:
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run([*command, str(folder / "tree")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def _tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_wheel_and_checkout_hold_the_same_files(wheel: set[str]) -> None:
    wanted = set()
    for name in _tracked():
        top = name.split("/")[0]
        if top == "catalogproc":
            wanted.add(name)
        elif top in DATA or name.startswith("examples/giants/"):
            wanted.add(f"catalogproc/_data/{name}")
    assert wheel == wanted
