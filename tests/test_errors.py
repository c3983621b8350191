"""Errors speak to the user, and survive the way between Dask's processes."""

from __future__ import annotations

import inspect
import pickle

import pytest

from catalogproc import errors
from catalogproc.errors import CatalogprocError, InputError, Refusal

ALL = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, CatalogprocError)
]


def test_text_says_wanted_found_where_and_what_to_do() -> None:
    error = InputError("no", wanted="55", found=51, where="a.csv", advice="ask")
    assert str(error) == "no\n  wanted: 55\n  found: 51\n  where: a.csv\n  what to do: ask"


@pytest.mark.parametrize("kind", ALL)
def test_pickled_and_back(kind: type[CatalogprocError]) -> None:
    error = kind("no", wanted="55", found=51)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert again.exit_code == (2 if issubclass(kind, Refusal) else 1)


def test_the_docstring_draws_the_whole_tree() -> None:
    assert all(kind.__name__ in (errors.__doc__ or "") for kind in ALL)
