"""A run in surroundings of other programs: JupyterHub's link template, Dask's configuration."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.bundles import tiny_bundle
from support.paths import DATA

SPECTRA = DATA / "user_inputs" / "xp6.parquet"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle").path


def run(output: Path, bundle: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    words = ["run", "--input", str(SPECTRA), "--output", str(output), "--model", str(bundle)]
    return subprocess.run(
        [sys.executable, "-m", "catalogproc", *words, "--workers", "1", "--device", "cpu"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_link_template_that_does_not_apply_gives_a_plain_address(
    bundle: Path, tmp_path: Path
) -> None:
    template = "{A_VARIABLE_OF_JUPYTERHUB}proxy/{port}/status"
    done = run(tmp_path / "out", bundle, DASK_DISTRIBUTED__DASHBOARD__LINK=template)
    assert done.returncode == 0, done.stderr
    assert "dashboard: http://127.0.0.1:" in done.stdout


def test_a_temporary_folder_that_cannot_be_written_is_named(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = str(tmp_path / "file" / "dask")
    done = run(tmp_path / "out", bundle, DASK_TEMPORARY_DIRECTORY=folder)
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"where: {folder}" in done.stderr
    assert "DASK_TEMPORARY_DIRECTORY" in done.stderr
    assert not (tmp_path / "out").exists(), "a refused start makes no output folder"


def test_a_script_without_a_main_guard_is_told_so(bundle: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import catalogproc\n"
        f"catalogproc.run({str(SPECTRA)!r}, {str(tmp_path / 'out')!r}, model={str(bundle)!r})\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode != 0
    assert 'needs: if __name__ == "__main__"' in done.stderr
