"""Errors have a message for the user, and can be sent between Dask's processes."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest

import catalogproc
from catalogproc import errors
from catalogproc.cli.main import main
from catalogproc.contract import load_contract
from catalogproc.errors import CatalogprocError, InputError, Refusal, did_you_mean, plural
from catalogproc.export.export import export_catalog
from catalogproc.export.where import parse
from catalogproc.job import load_job
from catalogproc.network.bundle import load_bundle
from catalogproc.paper.registry import select_experiments
from catalogproc.release import load_release
from catalogproc.vocabulary import load_vocabulary

ALL = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, CatalogprocError)
]


def test_the_text_states_wanted_found_where_and_advice() -> None:
    error = InputError("no", wanted="55", found=51, where="a.csv", advice="ask")
    assert str(error) == "no\n  wanted: 55\n  found: 51\n  where: a.csv\n  what to do: ask"
    assert error.text(advice=False) == "no\n  wanted: 55\n  found: 51\n  where: a.csv"
    assert (error.wanted, error.found, error.where, error.advice) == ("55", 51, "a.csv", "ask")
    assert InputError("no").text() == "no"


@pytest.mark.parametrize("kind", ALL)
def test_an_error_survives_pickling(kind: type[CatalogprocError]) -> None:
    error = kind("no", wanted="55", found=51, advice="ask")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert (again.wanted, again.found, again.where, again.advice) == ("55", "51", None, "ask")
    assert again.exit_code == (2 if issubclass(kind, Refusal) else 1)


def test_an_error_that_cannot_be_pickled_whole_is_sent_as_text() -> None:
    """What was found may be any object, such as one of a library that Dask's side lacks."""
    error = InputError("no", found=lambda: None)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_an_error_of_another_class_has_the_same_fields() -> None:
    error = InputError("no", wanted=1, found=2, where="x", advice="ask")
    refusal = Refusal.of(error)
    assert (type(refusal), str(refusal), refusal.exit_code) == (Refusal, str(error), 2)
    assert refusal.details == error.details == {"wanted": 1, "found": 2, "where": "x"}


def test_the_docstring_draws_the_whole_tree() -> None:
    assert all(kind.__name__ in (errors.__doc__ or "") for kind in ALL)


def test_a_number_has_its_word() -> None:
    assert [plural(n, "spectrum", "spectra") for n in (1, 2)] == ["1 spectrum", "2 spectra"]
    assert [plural(n, "row") for n in (0, 1, 2, 1234)] == [
        "0 rows",
        "1 row",
        "2 rows",
        "1,234 rows",
    ]


@pytest.mark.parametrize(
    ("found", "advice"),
    [
        ("tef", "did you mean teff?"),
        ("TEFF", "did you mean teff?"),
        ("colour", None),
        ("", None),
        ("tfef", "did you mean teff?"),
    ],
)
def test_the_closest_known_word_is_suggested(found: str, advice: str | None) -> None:
    assert did_you_mean(found, ["teff", "logg", "mass"]) == advice


def test_suggestions_stand_in_the_errors_for_columns_labels_and_jobs(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text('kind = "run"\ncoeficients = 3\n')
    for question, advice in (
        (lambda: load_contract("catalog")["log_g"], "logg"),
        (lambda: load_job("gaia-dr3-giant"), "gaia-dr3-giants"),
        (lambda: load_job(tmp_path / "job.toml"), "coefficients"),
        (lambda: parse("good_param", load_contract("catalog")), "good_params"),
        (lambda: load_vocabulary().number("tef"), "teff"),
        (lambda: select_experiments("nonne"), "none"),
        (lambda: export_catalog(tmp_path, "ftis", tmp_path / "x"), "fits"),
        (lambda: load_bundle("giant"), "giants"),
        (lambda: load_release("drr3"), "dr3"),
    ):
        with pytest.raises(CatalogprocError) as caught:
            question()
        assert caught.value.advice == f"did you mean {advice}?"


@pytest.mark.parametrize("text", ["mass = 1", "mass > 1 & m_h < 0", "good_params && teff > 1"])
def test_operators_of_other_languages_are_explained(text: str) -> None:
    with pytest.raises(CatalogprocError) as caught:
        parse(text, load_contract("catalog"))
    assert caught.value.advice is not None
    assert "write == for equal, and for &" in caught.value.advice


def test_windows_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(errors, "os", SimpleNamespace(name="nt"))
    monkeypatch.setattr("sys.argv", ["catalogproc", "describe", "catalog"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "does not run on Windows" in capsys.readouterr().err
    with pytest.raises(Refusal, match="Windows Subsystem for Linux"):
        _ = catalogproc.load_model
    assert catalogproc.CatalogprocError is CatalogprocError  # what an except clause names
