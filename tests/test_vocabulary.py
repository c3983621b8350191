"""The vocabulary is data: Gaia DR3's is shipped, another release's is another file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from catalogproc.errors import ContractError, ReleaseError
from catalogproc.features import canonical_tables
from catalogproc.release import load_release
from catalogproc.resources import shipped
from catalogproc.vocabulary import BANDS, Token, Vocabulary, load_vocabulary


def test_numbers_are_those_of_the_seed_model() -> None:
    vocabulary = load_vocabulary()
    assert len(vocabulary) == 122
    numbers = {"bp0": 1, "bp54": 55, "rp0": 56, "rp54": 110, "bprp": 111, "jk": 113, "teff": 114}
    numbers |= {"logg": 115, "m_h": 116, "logebv": 117, "g_fakemag": 118, "mass": 119}
    for name, number in numbers.items():
        assert vocabulary.number(name) == number
    assert vocabulary.number("log_age") == 120
    assert vocabulary.number("alpha_m") == 121
    assert vocabulary.number("rc_prob") == 122
    assert vocabulary.coefficients("bp") == vocabulary.coefficients("rp") == 55
    assert np.array_equal(vocabulary.coefficient_columns("rp"), np.arange(55, 110))


def test_another_release_needs_no_code(tmp_path: Path) -> None:
    text = (shipped("schemas") / "vocabulary.toml").read_text()
    path = tmp_path / "of_dr4.toml"
    path.write_text(text.replace('release = "dr3"', 'release = "dr4"'))
    for vocabulary in (load_vocabulary(path), load_vocabulary(release=load_release("dr4"))):
        assert (vocabulary.coefficients("bp"), vocabulary.coefficients("rp")) == (51, 55)
        assert vocabulary.number("rp0") == 52
        assert (vocabulary.release, vocabulary.basis) == ("dr4", "archive")
    (tmp_path / "own.toml").write_text('version = 1\nname = "own"\nlike = "dr4"\n')
    path.write_text(text.replace('release = "dr3"', 'release = "own.toml"'))
    assert load_vocabulary(path).release == "own"


def test_a_width_that_the_release_has_not_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.toml"
    text = (shipped("schemas") / "vocabulary.toml").read_text()
    path.write_text(text.replace('name = "bp"', 'name = "bp"\ncount = 51'))
    with pytest.raises(ReleaseError, match="not those of Gaia DR3") as caught:
        load_vocabulary(path)
    assert caught.value.wanted == "55 coefficients"


def test_round_trip_through_rows() -> None:
    vocabulary = load_vocabulary()
    assert Vocabulary.from_rows(vocabulary.to_rows()) == vocabulary
    other = Vocabulary.from_rows(vocabulary.to_rows(), "dr4", "canonical")
    assert (other.release, other.basis) == ("dr4", "canonical")
    with pytest.raises(ContractError, match="basis"):
        Vocabulary.from_rows(vocabulary.to_rows(), "dr4", "sampled")


def test_unknown_token_lists_the_known_ones() -> None:
    with pytest.raises(ContractError, match="bp0 … bp54, rp0 … rp54, bprp") as caught:
        load_vocabulary().number("vmag")
    assert "vmag" in str(caught.value)


def test_numbers_must_run_without_a_gap() -> None:
    token = Token(2, "x", "label", "", "identity", "x", "x")
    with pytest.raises(ContractError, match="must run 1, 2, 3"):
        Vocabulary((token,))


def test_a_canonical_vocabulary_has_the_numbers_of_the_operators_whatever_the_release() -> None:
    for release in ("dr3", "dr4"):
        vocabulary = load_vocabulary(release=load_release(release), basis="canonical")
        assert vocabulary.basis == "canonical"
        for band in BANDS:
            part = canonical_tables.columns(band)
            assert vocabulary.coefficients(band) == part.stop - part.start
