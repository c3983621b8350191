"""What does not fit on the disk is refused before it is written."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from catalogproc.errors import Refusal
from catalogproc.io.archives import unpack


def test_an_archive_that_does_not_fit_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, stage = tmp_path / "stars.zip", tmp_path / "stage"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", b"x" * 3000)
    stage.mkdir()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 2048}))
    with pytest.raises(Refusal, match=r"(?s)too little space to unpack.*2\.9 KiB.*2\.0 KiB free"):
        unpack(path, stage)
    monkeypatch.undo()
    assert not [file for file in stage.rglob("*") if file.is_file()]
    assert [file.name for file in unpack(path, stage)] == ["a.csv"]
