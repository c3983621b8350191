"""Values of every dialect become exact numbers or are marked; never other values."""

from __future__ import annotations

import csv
import decimal
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogproc.readers import coerce
from catalogproc.readers.formats.text import open_text

NUMBERS = st.floats(width=64) | st.floats(-1e6, 1e6).map(lambda x: round(x, 3))
TEXTS = [pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.string_view()]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.none() | st.lists(NUMBERS, max_size=9), min_size=1, max_size=20),
    manner=st.sampled_from([("(", ", ", ")"), ("[", ",", "]"), ("", ",", ""), ("[", " , ", "]")]),
    kind=st.sampled_from(TEXTS),
    first=st.integers(0, 3),
)
def test_lists_written_out_come_back_bit_for_bit(rows, manner, kind, first):
    begin, between, end = manner
    texts = [None if row is None else begin + between.join(map(repr, row)) + end for row in rows]
    array = pa.array(texts).cast(kind).slice(first)
    found, bad = coerce.lists(array, pa.float64())
    found.validate(full=True)
    assert not bad.any()
    for value, row in zip(found.to_pylist(), rows[first:], strict=True):
        if not row:
            assert value is None
        else:
            assert (
                np.array(value).tobytes() == np.array(row, float).tobytes() or np.isnan(row).any()
            )
            assert np.array_equal(value, row, equal_nan=True)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(st.floats(allow_nan=False), max_size=5), min_size=1, max_size=9),
    spoilt=st.sampled_from(["x", "1.2.3", "1e", "0x1f", "1_000", "--5", "1 2", "é", "\x00", "(1"]),
    data=st.data(),
)
def test_what_is_no_number_costs_its_list_alone(rows, spoilt, data):
    at = data.draw(st.integers(0, len(rows) - 1))
    texts = ["[" + ",".join(map(repr, row)) + "]" for row in rows]
    texts[at] = "[" + ",".join([*map(repr, rows[at]), spoilt, "7"]) + "]"
    found, bad = coerce.lists(pa.array(texts), pa.float64())
    assert np.flatnonzero(bad).tolist() == [at]
    assert found.to_pylist() == [row or None if n != at else None for n, row in enumerate(rows)]


def test_what_stands_for_nothing():
    array = pa.array(["", "null", "[]", "()", "NaN", "--", None, "[1.5]", "2,3"])
    found, bad = coerce.lists(array, pa.float32())
    assert found.to_pylist() == [None] * 7 + [[1.5], [2.0, 3.0]]
    assert not bad.any()
    found, bad = coerce.lists(pa.array(["[1,null]", "(NaN, 2)", "3,", "[,]"]), pa.float64())
    assert found[3].as_py() is None  # nothing but missing elements
    assert [np.isnan(row).tolist() for row in found.to_pylist()[:3]] == [
        [False, True], [True, False], [False, True],
    ]  # fmt: skip
    assert not bad.any()


def test_blanks_between_numbers_where_no_row_has_commas():
    found, bad = coerce.lists(pa.array(["1 2  3\n4", "[5 6]", "", "x 1", "7"]), pa.float64())
    assert found.to_pylist() == [[1, 2, 3, 4], [5, 6], None, None, [7]]
    assert bad.tolist() == [False, False, False, True, False]


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float64(), 2),
     pa.list_view(pa.float64()), pa.large_list_view(pa.float32()), pa.list_(pa.int32()),
     pa.list_(pa.dictionary(pa.int8(), pa.float64()))],
    ids=str,
)  # fmt: skip
def test_lists_of_every_kind(kind):
    rows = [[1, 2], None, [3, 4], [5, 6]]
    array = (
        pa.array(rows, pa.list_(pa.float64()))
        if pa.types.is_dictionary(kind.value_type)
        else pa.array(rows, kind)
    )
    assert coerce.is_list(array.type)
    for first in (0, 1, 2):
        found, bad = coerce.lists(array.slice(first), pa.float64())
        found.validate(full=True)
        assert found.type == pa.list_(pa.float64())
        assert found.to_pylist() == rows[first:]
        assert len(found.values) == 2 * sum(row is not None for row in rows[first:])
        assert not bad.any()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1 - (1 << 63), (1 << 63) - 1), min_size=1))
def test_identifiers_never_pass_through_a_float(values):
    for array in (
        pa.array(values, pa.int64()),
        pa.array([str(value) for value in values]),
        pa.array([f" {value}\t" for value in values]),
        pa.array([decimal.Decimal(value) for value in values], pa.decimal128(20, 0)),
        pa.array(values, pa.int64()).dictionary_encode(),
    ):
        found, bad = coerce.identifiers(array)
        assert found.type == pa.int64()
        assert found.to_pylist() == [value if value > 0 else None for value in values]
        assert not bad.any()


def test_identifiers_that_are_missing_or_unreadable():
    good, beyond = "9223372036854775807", "9223372036854775808"
    texts = [good, beyond, "-" + good, "-" + beyond, "99999999999999999999", "1.0", "1e18",
             "", None, "null", "7 8", "0x7", "+7"]  # fmt: skip
    found, bad = coerce.identifiers(pa.array(texts))
    assert found.to_pylist() == [int(good), *[None] * 12]
    assert np.flatnonzero(~bad).tolist() == [0, 2, 7, 8, 9]
    found, bad = coerce.identifiers(pa.array([1 << 63, 5, None], pa.uint64()))
    assert found.to_pylist() == [None, 5, None]
    assert bad.tolist() == [True, False, False]


def test_numbers_keep_nothing_that_does_not_fit():
    array = pa.array([1.0, np.nan, None, 2.5, 1e9, np.inf, -3.0])
    found, bad = coerce.numbers(array, pa.int16())
    assert found.to_pylist() == [1, None, None, None, None, None, -3]
    assert bad.tolist() == [False, False, False, True, True, True, False]
    texts = pa.array(["1", "31.0", "", "nan", "x", "99999", "1.5"])
    found, bad = coerce.numbers(texts, pa.int16())
    assert found.to_pylist() == [1, 31, None, None, None, None, None]
    assert bad.tolist() == [False] * 4 + [True] * 3
    found, bad = coerce.numbers(texts, pa.float32())
    assert found.to_pylist() == [1, 31, None, None, None, 99999, 1.5]
    assert bad.tolist() == [False] * 4 + [True] + [False] * 2


CELLS = st.text("ab1.[]{};é", max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(
        st.lists(CELLS | st.text("a1, ", max_size=9), min_size=3, max_size=3), max_size=12
    ),
    quoted=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    ending=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
)
def test_fields_are_those_that_pythons_csv_finds(rows, quoted, ending, last, tmp_path_factory):
    path = Path(tmp_path_factory.mktemp("csv")) / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=quoted, lineterminator=ending)
        writer.writerow(["p", "q", "r"])
        writer.writerows(rows)
    if last:
        path.write_bytes(path.read_bytes().removesuffix(ending.encode()))
    with path.open(newline="", encoding="utf-8") as file:
        wanted = list(csv.DictReader(file))
    table = open_text(path)
    parts = [part.columns for part in table.batches(["r", "p", "q"], batch_rows=5)]
    found = [
        {name: value.decode() for name, value in row.items()}
        for part in parts
        for row in part.to_pylist()
    ]
    assert found == wanted


def test_a_number_reads_as_python_reads_it():
    """Halfway cases, subnormals, the largest and the most digits, through the text path."""
    texts = ["5e-324", "2.2250738585072011e-308", "1.7976931348623157e308", "9007199254740993",
             "0.1", "123456789012345678901234567890", "1e23", "8.41e21", "-0.0"]  # fmt: skip
    found, _ = coerce.lists(pa.array(["[" + ",".join(texts) + "]"]), pa.float64())
    wanted = np.array(json.loads("[" + ",".join(texts) + "]"), float)
    assert np.array(found[0].as_py()).tobytes() == wanted.tobytes()


def test_samples_are_fit_for_a_message():
    array = pa.array([b"\xff" * 99, b"short", None])
    said = coerce.samples(array, np.array([0, 1, 2]))
    assert all(len(text) < 60 and re.fullmatch(r"'.*'", text) for text in said)
    assert pc.is_null(array)[2].as_py()
