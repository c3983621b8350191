"""Conditions on rows: the selection by Arrow equals that by Python; other texts are refused."""

from __future__ import annotations

import ast
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.catalogs import catalog_table

from catalogproc.contract import load_contract
from catalogproc.errors import CatalogprocError, ContractError, JobError
from catalogproc.export.where import parse
from catalogproc.flags import load_flags, load_input_flags

CATALOG = load_contract("catalog")
ROWS = catalog_table(500, seed=3)
SOURCE = ROWS["source_id"][17].as_py()


def selected(text: str) -> list[int]:
    """Return the selected rows by Arrow."""
    numbered = ROWS.append_column("number", pa.array(np.arange(len(ROWS))))
    return numbered.filter(parse(text, CATALOG).expression)["number"].to_pylist()


def evaluated(text: str) -> list[int]:
    """Return the selected rows by Python, row by row."""
    known: dict[str, Any] = {
        "abs": abs,
        "finite": math.isfinite,
        "log10": lambda x: math.log10(x) if x > 0 else math.nan,
        "sqrt": lambda x: math.sqrt(x) if x >= 0 else math.nan,
    }
    found = []
    for number, row in enumerate(ROWS.to_pylist()):
        flags = row["quality_flags"]
        facts = row["input_flags"]
        words = {*load_flags().words(flags), *load_input_flags().words(facts)}
        known["flag"] = lambda *names, words=words: not words.isdisjoint(names)
        if eval(text, known, row):
            found.append(number)
    return found


@pytest.mark.parametrize(
    "text",
    [
        "good_mass_age and m_h > -0.5",
        "good_params or good_mass_age and not has_tmass",
        'flag("RUWE", "XP_BOX")',
        'not flag("PLX_ZP_ASSUMED")',
        'flag("PLX_ZP_ASSUMED", "RUWE")',
        'not flag("NOT_GIANT") and quality_flags != 0',
        "0.8 < mass <= 1.2",
        "e_mass / mass < 0.2 and abs(m_h + 0.2) ** 2 < 0.01",
        "finite(dist_84) and dist_84 > dist",
        "dist_84 > 0",  # false for NaN
        "not dist_84 > 0",  # true for NaN
        "log10(age) - sqrt(mass) > -m_h * 2 + 1",
        "n_tokens * 2 > 60 and n_tokens / 2 < 20.5",
        f"source_id == {SOURCE}",
        f"source_id in ({SOURCE}, 1, 2)",
        f"source_id not in [{SOURCE}]",
        f"source_id > {SOURCE}",
        'model_id == "0123abcd" or run_id == "0123abcd"',
        "has_tmass == good_params",
        "True and teff < 5000",
        "-90.0 <= dec < +1",
    ],
)
def test_arrow_selects_what_python_selects(text: str) -> None:
    found = selected(text)
    assert found == evaluated(text)


def test_source_ids_are_compared_as_integers() -> None:
    """The next lower integer is another star with the same float64."""
    assert float(SOURCE) == float(SOURCE - 1)
    assert selected(f"source_id == {SOURCE}") == [17]
    assert selected(f"source_id == {SOURCE - 1}") == []


def test_columns_of_a_condition_are_collected() -> None:
    condition = parse('flag("RUWE") or 1 < mass < 2 and mass > m_h', CATALOG)
    assert condition.columns == ("quality_flags", "mass", "m_h")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('__import__("os").system("true")', "not allowed in a condition"),
        ("m_h.real > 1", "found: m_h.real"),
        ("(lambda: True)()", "not allowed in a condition"),
        ("[x for x in (1, 2)]", "not allowed in a condition"),
        ('f"{teff}" == "1"', "not allowed in a condition"),
        ("teff[0] > 1", "not allowed in a condition"),
        ("teff > 1 if good_params else False", "not allowed in a condition"),
        ("quality_flags & 32", 'flag\\("NAME"\\) for bits'),
        ("good_params & has_tmass", "and, or for conditions"),
        ('flag("NONSENSE")', "of NO_XP, XP_ONE_BAND"),
        ("flag()", "of NO_XP"),
        ("source_id > 1.5", "integers to compare"),
        ("source_id == 1e18", "integers to compare"),
        ("source_id + 1 > 2", "for comparisons only"),
        ("source_id == 9999999999999999999", "64 bits"),
        ("teff in (1.5, 2)", "an integer or a string"),
        ("teff", "not a condition"),
        ("teff > 4000 and mass", "conditions with and"),
        ("not teff", "a condition after not"),
        ("good_params > 0", "two numbers, two strings or two conditions"),
        ('teff > "4000"', "two numbers"),
        ("teff is 1", "<, <=, =="),
        ("teff >", "cannot be parsed"),
        ("teff = 4000", "cannot be parsed"),
        ("", "cannot be parsed"),
        ("\0", "cannot be parsed"),
        ("not " * 450 + "good_params", "cannot be parsed"),
        ("(" * 400 + "1" + ")" * 400, "cannot be parsed"),
        ("good_params and " * 500 + "good_params", "too long"),
        ("abs(teff, 1) > 2", "abs\\(x\\)"),
        ("abs(x=teff) > 2", "flag\\(…\\)"),
    ],
)
def test_other_texts_are_refused_with_their_place(text: str, message: str) -> None:
    with pytest.raises(JobError, match=message) as caught:
        parse(text, CATALOG)
    assert caught.value.details["where"] == "--where"


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(ContractError, match="found: colour"):
        parse("colour > 1", CATALOG)


PIECES = st.sampled_from(
    [*CATALOG.names[:20], "and", "or", "not", "in", "(", ")", ",", "<", "==", "+", "*", "1", "-2.5",
     '"x"', "flag", '"RUWE"', "lambda", ":", ".", "[", "]", "=", "import", "**", "%", "1e9", "\n"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=12).map(" ".join) | st.text(max_size=30))
def test_any_text_is_a_condition_or_an_error_of_ours(text: str) -> None:
    try:
        condition = parse(text, CATALOG)
    except CatalogprocError:
        return
    ast.parse(text.strip(), mode="eval")
    assert set(condition.columns) <= set(CATALOG.names)
    assert ROWS.filter(condition.expression).num_rows <= len(ROWS)
