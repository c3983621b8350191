"""A lock is held by one process, names it, and is released when the process ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from catalogproc.errors import LockedError, Refusal
from catalogproc.io import locks
from catalogproc.io.locks import Lock, lock_holder

HOLDER = """
import sys
from pathlib import Path
from catalogproc.io.locks import Lock
lock = Lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_lock_is_refused_and_names_the_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with Lock(path):
        with pytest.raises(LockedError, match=f"process {os.getpid()} on ") as caught:
            Lock(path)
        assert isinstance(caught.value, Refusal)
    with Lock(path) as lock:
        lock.release()
        lock.release()
        Lock(path).release()


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LockedError, match=f"process {holder.pid} on"):
            Lock(path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    Lock(path).release()


def test_it_is_the_lock_of_the_library(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with Lock(path), pytest.raises(Timeout):
        FileLock(path).acquire(timeout=0)
    with FileLock(path), pytest.raises(LockedError):
        Lock(path)


def test_waiting_ends_when_the_lock_is_released(tmp_path: Path) -> None:
    first = Lock(tmp_path / "lock")
    timer = threading.Timer(0.2, first.release)
    timer.start()
    Lock(tmp_path / "lock", wait=True).release()
    assert not timer.is_alive() or first._descriptor == -1
    timer.join()


def test_a_link_is_not_followed_and_garbage_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="link"):
        Lock(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()
    (tmp_path / "garbage").write_text("[]")
    assert lock_holder(tmp_path / "garbage") == "an unknown process"
    Lock(tmp_path / "garbage").release()
    assert lock_holder(tmp_path / "garbage").startswith(f"process {os.getpid()} on ")
    assert lock_holder(tmp_path / "nothing") == "an unknown process"


def test_a_file_of_another_user_is_locked_without_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    path.write_text('{"pid": 1, "host": "theirs"}')
    real_open = os.open

    def as_another_user(name: object, flags: int, *mode: int) -> int:
        if flags & os.O_ACCMODE == os.O_RDWR:
            raise PermissionError(13, "Permission denied")
        return real_open(name, flags, *mode)  # type: ignore[arg-type]

    monkeypatch.setattr(locks.os, "open", as_another_user)
    with Lock(path):
        assert path.read_text() == '{"pid": 1, "host": "theirs"}'
        with pytest.raises(LockedError, match="process 1 on theirs"):
            Lock(path)
