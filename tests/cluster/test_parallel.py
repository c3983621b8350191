"""A function of many files runs in threads where it waits, and in one where it computes."""

from __future__ import annotations

import threading
import time

import pytest

from catalogproc.cluster import parallel
from catalogproc.cluster.parallel import FIRST, map_parallel

ITEMS = list(range(40))


def test_what_waits_is_called_in_threads_and_the_order_stays() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def waits(item: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return 2 * item

    assert map_parallel(waits, ITEMS) == [2 * item for item in ITEMS]
    assert most > 3


def test_what_computes_is_called_in_this_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that compute wait for each other: Python runs one at a time."""
    monkeypatch.setattr(parallel, "COMPUTING", 0.05)  # other programs may use the cores too

    def computes(item: int) -> int:
        end = time.thread_time() + 0.002
        while time.thread_time() < end:
            pass
        return threading.get_ident()

    assert set(map_parallel(computes, ITEMS)) == {threading.get_ident()}


@pytest.mark.parametrize("number", [0, FIRST + 1])
def test_an_error_is_raised(number: int) -> None:
    def fails(item: int) -> int:
        time.sleep(0.001)
        if item == number:
            raise OSError(f"no file {item}")
        return item

    with pytest.raises(OSError, match=f"no file {number}"):
        map_parallel(fails, ITEMS)
    assert map_parallel(fails, []) == []
