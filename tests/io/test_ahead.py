"""Items made ahead in a thread: all of them, in order, no more than asked for, errors too."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator

import pytest

from catalogproc.io.ahead import ahead, mapped

SECONDS = 20.0


def threads_now() -> int:
    return sum(thread.name.startswith("ahead") for thread in threading.enumerate())


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_all_items_come_in_order_and_no_thread_stays(depth: int) -> None:
    assert list(ahead((x * x for x in range(20)), depth)) == [x * x for x in range(20)]
    assert list(ahead((x for x in ()), depth)) == []
    assert threads_now() == 0


def test_the_next_item_is_made_while_one_is_used() -> None:
    began = [threading.Event() for _ in range(3)]

    def items() -> Generator[int]:
        for number, event in enumerate(began):
            event.set()
            yield number

    for number in (made := ahead(items(), 1)):
        if number < 2:
            assert began[number + 1].wait(SECONDS)
        if number == 0:
            assert not began[2].is_set()  # one, and not all of them
    made.close()


@pytest.mark.parametrize("depth", [0, 1])
def test_an_error_comes_where_its_item_would(depth: int) -> None:
    def items() -> Generator[int]:
        yield 1
        raise OSError(28, "no space")

    made = ahead(items(), depth)
    assert next(made) == 1
    with pytest.raises(OSError, match="no space"):
        next(made)
    assert list(made) == []
    assert threads_now() == 0


@pytest.mark.parametrize("depth", [0, 2])
def test_a_caller_that_stops_closes_the_generator(depth: int) -> None:
    closed = []

    def items() -> Generator[int]:
        try:
            yield from range(100)
        finally:
            closed.append(threading.current_thread().name)

    made = ahead(items(), depth)
    assert next(made) == 0
    made.close()
    assert len(closed) == 1
    assert closed[0].startswith("ahead") == bool(depth)
    assert threads_now() == 0


def test_a_pipeline_works_on_several_items_at_once() -> None:
    together = threading.Barrier(3)

    def step(items: Generator[int], place: int) -> Generator[int]:
        for item in items:
            if 2 <= item + place < 6:
                together.wait(SECONDS)  # broken unless three steps are here at the same time
            yield item

    first = ahead(step((x for x in range(9)), 0), 1)
    second = ahead(step(first, 1), 1)
    assert list(step(second, 2)) == list(range(9))


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_steps_in_threads_keep_the_order(threads: int) -> None:
    def slow(x: int) -> int:
        if x == 4:
            time.sleep(0.05)
        return x * x

    assert list(mapped(slow, range(20), threads)) == [x * x for x in range(20)]
    assert threads_now() == 0


def test_several_steps_run_at_the_same_time_and_no_more_than_asked() -> None:
    together, running = threading.Barrier(3), []

    def step(x: int) -> int:
        running.append(x)
        together.wait(SECONDS)
        return x

    made = mapped(step, range(9), 3)
    assert next(made) == 0
    assert len(running) <= 6  # three that are done, three that were begun
    assert list(made) == list(range(1, 9))


@pytest.mark.parametrize("threads", [0, 3])
def test_an_error_of_a_step_comes_at_its_place(threads: int) -> None:
    begun = []

    def step(x: int) -> int:
        begun.append(x)
        if x == 2:
            raise OSError(28, "no space")
        return x

    made = mapped(step, range(1000), threads)
    assert [next(made), next(made)] == [0, 1]
    with pytest.raises(OSError, match="no space"):
        next(made)
    assert len(begun) < 10
    assert threads_now() == 0
