"""Copies beside the computation: everything arrives, in order, and nothing races."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.clocked_streams import Races, _Event, _Stream

from catalogproc.network.device_copies import ToDevice, ToHost

CPU = torch.device("cpu")


def pipeline(sizes: list[int], races: Races | None = None) -> list[float]:
    """Double tables of some sizes by the way of a GPU; return a number of each."""
    found: list[float] = []
    target = {size: torch.zeros(size, 3) for size in sizes}
    result = {size: torch.zeros(size, 3) for size in sizes}
    up, down = ToDevice(CPU, torch.float32), ToHost(CPU)

    def deliver(table: np.ndarray) -> None:
        if races is not None:
            races.by_host(table, writes=False)
        assert (table == table[0, 0]).all()
        found.append(float(table[0, 0]))

    for number, size in enumerate(sizes):
        table = up.buffer(size, 3)
        if races is not None:
            races.by_host(table, writes=True)
        table[:] = number
        up.send(target[size])
        result[size].copy_(target[size]).mul_(2)
        down.take(result[size], deliver)
    down.finish()
    return found


def test_each_table_arrives_once_and_in_order() -> None:
    sizes = [5, 5, 2, 7, 7, 1, 5]
    assert pipeline(sizes) == [2.0 * number for number in range(len(sizes))]


def test_events_order_every_access(monkeypatch: pytest.MonkeyPatch) -> None:
    races = Races()
    monkeypatch.setattr(torch, "get_device_module", lambda device: races)
    with races:
        pipeline([4] * 7, races)
    assert not races.found


@pytest.mark.parametrize("what", [(_Stream, "wait_event"), (_Event, "synchronize")])
def test_a_missing_wait_is_found(monkeypatch: pytest.MonkeyPatch, what: tuple[type, str]) -> None:
    """The check of the test above finds the races of copies that do not wait."""
    races = Races()
    monkeypatch.setattr(torch, "get_device_module", lambda device: races)
    monkeypatch.setattr(*what, lambda *given: None)
    with races:
        pipeline([4] * 7, races)
    assert races.found
