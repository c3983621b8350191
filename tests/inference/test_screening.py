"""Rejected rows: each has its reason; accepted rows are not changed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import EXAMPLES

from catalogproc.contract import load_contract
from catalogproc.inference.screening import REASONS, Duplicates, screen, screen_tokens
from catalogproc.vocabulary import load_vocabulary

REAL = EXAMPLES / "xp_continuous_000.parquet"
VOCABULARY = load_vocabulary()
FILE = "xp_continuous_000.parquet"


def spectra(rows: int = 12) -> pa.RecordBatch:
    """Real spectra, as readers.xp yields them."""
    table = pq.read_table(REAL).slice(0, rows)
    table = table.append_column("row", pa.array(np.arange(rows), pa.int64()))
    table = table.append_column("fault", pa.nulls(rows, pa.string()))
    return table.combine_chunks().to_batches()[0]


def change(batch: pa.RecordBatch, row: int, **values: object) -> pa.RecordBatch:
    """The batch with values of one row replaced."""
    for name, value in values.items():
        index = batch.schema.get_field_index(name)
        content = batch.column(index).to_pylist()
        content[row] = value
        batch = batch.set_column(index, name, pa.array(content, batch.schema.field(index).type))
    return batch


def run(batch: pa.RecordBatch, seen: Duplicates | None = None) -> tuple[pa.RecordBatch, pa.Table]:
    good, rejected = screen(batch, VOCABULARY, seen or Duplicates(), FILE)
    load_contract("rejected").check(rejected)
    assert len(good) + len(rejected) == len(batch)
    return good, rejected


def real(batch: pa.RecordBatch, row: int, name: str) -> list[float]:
    return list(batch.column(name)[row].as_py())


def with_bases(batch: pa.RecordBatch, bp: list[int | None], rp: list[int | None]) -> pa.RecordBatch:
    for name, ids in (("bp", bp), ("rp", rp)):
        batch = batch.append_column(f"{name}_basis_function_id", pa.array(ids, pa.int16()))
    return batch


def test_coefficients_of_another_basis_are_rejected_row_by_row():
    bases = [56] * 12
    batch = with_bases(spectra(), [*bases[:3], 901, None, *bases[5:]], [*[57] * 11, 56])
    good, rejected = run(batch)
    assert rejected.column("row").to_pylist() == [3, 11]
    assert set(rejected.column("reason").to_pylist()) == {"other_basis"}
    assert rejected.column("detail").to_pylist() == [
        "bp_basis_function_id: wanted 56, found 901",
        "rp_basis_function_id: wanted 57, found 56",
    ]
    assert good.num_rows == 10


def test_the_basis_of_an_absent_band_does_not_matter():
    batch = change(spectra(), 3, bp_coefficients=None, bp_coefficient_errors=None)
    good, _ = run(with_bases(batch, [56] * 3 + [0] + [56] * 8, [57] * 12))
    assert good.num_rows == 12


def test_real_spectra_are_accepted_unchanged():
    batch = spectra(500)
    good, rejected = run(batch)
    assert good.equals(batch)
    assert len(rejected) == 0


def edited(batch: pa.RecordBatch, name: str, index: int, value: float | None) -> dict[str, object]:
    values = real(batch, 3, name)
    values[index] = value
    return {name: values}


BROKEN = {
    "unreadable": (lambda b: {"fault": "'(1, 2' does not close"}, "does not close"),
    "null id": (lambda b: {"source_id": None}, "wanted a positive integer, found null"),
    "negative id": (lambda b: {"source_id": -7}, "found -7"),
    "same id": (lambda b: {"source_id": b.column("source_id")[1].as_py()}, "earlier row"),
    "short": (
        lambda b: {"bp_coefficients": real(b, 3, "bp_coefficients")[:54]},
        "bp: wanted 55 coefficients, 55 errors, found 54 coefficients, 55 errors",
    ),
    "errors alone": (lambda b: {"rp_coefficients": None}, "found 0 coefficients, 55 errors"),
    "no errors": (lambda b: {"rp_coefficient_errors": None}, "found 55 coefficients, 0 errors"),
    "NaN": (
        lambda b: edited(b, "rp_coefficients", 7, float("nan")),
        "rp_coefficients: wanted finite numbers, found 1 of 55 are not",
    ),
    "null inside": (lambda b: edited(b, "bp_coefficients", 0, None), "found 1 of 55 are not"),
    "infinite": (lambda b: edited(b, "bp_coefficients", 54, float("inf")), "found 1 of 55"),
    "NaN error": (lambda b: edited(b, "bp_coefficient_errors", 3, float("nan")), "1 of 55"),
    "negative error": (lambda b: edited(b, "rp_coefficient_errors", 3, -1.0), "above zero"),
    "zero error": (lambda b: edited(b, "rp_coefficient_errors", 3, 0.0), "above zero"),
    "no band": (
        lambda b: dict.fromkeys(
            ["bp_coefficients", "bp_coefficient_errors", "rp_coefficients", "rp_coefficient_errors"]
        ),
        "both absent",
    ),
}
REASON = {
    "unreadable": "unreadable", "null id": "no_source_id", "negative id": "no_source_id",
    "same id": "duplicate", "short": "wrong_length", "errors alone": "wrong_length",
    "no errors": "wrong_length", "NaN": "bad_value", "null inside": "bad_value",
    "infinite": "bad_value", "NaN error": "bad_error", "negative error": "bad_error",
    "zero error": "bad_error", "no band": "no_coefficients",
}  # fmt: skip


def test_every_reason_has_a_case():
    assert set(REASON.values()) | {"no_tokens", "other_basis"} == set(REASONS)
    assert set(REASON) == set(BROKEN)


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_row_is_rejected_with_its_reason(case):
    make, words = BROKEN[case]
    batch = spectra()
    broken = change(batch, 3, **make(batch))
    good, rejected = run(broken)
    (row,) = rejected.to_pylist()
    assert row["reason"] == REASON[case]
    assert words in row["detail"]
    assert (row["row"], row["file"]) == (3, FILE)
    assert row["source_id"] == broken.column("source_id")[3].as_py()
    others = [i for i in range(12) if i != 3]
    assert good.equals(batch.take(pa.array(others)))


@pytest.mark.parametrize("absent", [None, [], [float("nan")] * 55])
@pytest.mark.parametrize("band", ["bp", "rp"])
def test_a_star_of_one_band_is_accepted(band, absent):
    batch = change(
        spectra(), 3, **{f"{band}_coefficients": absent, f"{band}_coefficient_errors": absent}
    )
    good, rejected = run(batch)
    assert len(rejected) == 0
    lost = {f"{band}_coefficients": None, f"{band}_coefficient_errors": None}
    assert good.equals(change(spectra(), 3, **lost))


def test_a_broken_band_rejects_the_whole_row():
    batch = spectra()
    batch = change(batch, 3, bp_coefficients=None, bp_coefficient_errors=None)
    batch = change(batch, 3, **edited(batch, "rp_coefficients", 7, float("nan")))
    assert run(batch)[1].column("reason").to_pylist() == ["bad_value"]


def test_a_zero_coefficient_may_have_a_zero_error():
    batch = spectra()
    batch = change(batch, 3, **edited(batch, "rp_coefficients", 54, 0.0))
    batch = change(batch, 3, **edited(batch, "rp_coefficient_errors", 54, 0.0))
    assert len(run(batch)[1]) == 0


def test_rejected_rows_come_in_the_order_of_the_file():
    batch = spectra()
    batch = change(batch, 9, fault="torn")
    batch = change(batch, 2, **edited(batch, "bp_coefficients", 1, float("nan")))
    batch = change(batch, 5, source_id=None)
    rejected = run(batch)[1]
    assert rejected.column("row").to_pylist() == [2, 5, 9]
    assert rejected.column("reason").to_pylist() == ["bad_value", "no_source_id", "unreadable"]


def test_slices_are_screened_as_slices():
    batch = change(spectra(), 3, bp_coefficients=None, bp_coefficient_errors=None)
    batch = change(batch, 7, **edited(batch, "rp_coefficients", 7, float("nan")))
    good, rejected = run(batch.slice(2, 8))
    assert rejected.column("row").to_pylist() == [7]
    assert good.column("row").to_pylist() == [2, 3, 4, 5, 6, 8, 9]


def test_the_vocabulary_defines_the_number_of_coefficients():
    tokens = [t for t in VOCABULARY.to_rows() if t["name"] not in {f"bp{i}" for i in range(51, 55)}]
    shorter = type(VOCABULARY).from_rows(t | {"number": n} for n, t in enumerate(tokens, 1))
    good, rejected = screen(spectra(), shorter, Duplicates(), FILE)
    assert len(good) == 0
    assert "wanted 51 coefficients" in rejected.column("detail")[0].as_py()


def test_duplicates_across_batches_and_chunks_keep_the_first():
    batch = spectra()
    seen = Duplicates()
    assert len(run(batch.slice(0, 8), seen)[0]) == 8
    good, rejected = run(batch.slice(4, 8), seen)
    assert good.column("row").to_pylist() == [8, 9, 10, 11]
    assert set(rejected.column("reason").to_pylist()) == {"duplicate"}
    earlier = batch.column("source_id").slice(0, 8).to_numpy()
    assert run(batch.slice(4, 8), Duplicates(earlier))[0].equals(good)


def test_a_rejected_row_counts_as_the_first_of_its_star():
    batch = spectra()
    batch = change(batch, 3, **edited(batch, "rp_coefficients", 7, float("nan")))
    batch = change(batch, 8, source_id=batch.column("source_id")[3].as_py())
    rejected = run(batch)[1]
    assert rejected.column("reason").to_pylist() == ["bad_value", "duplicate"]


def test_spectra_without_tokens_are_rejected():
    batch = spectra()
    readable, g_known = np.ones(12, dtype=bool), np.ones(12, dtype=bool)
    files = pa.array([f"{row}.csv" for row in range(12)])
    assert screen_tokens(batch, readable, g_known, files)[0].equals(batch)
    readable[[4, 6]] = False
    g_known[[4, 8]] = False
    good, rejected = screen_tokens(batch, readable, g_known, files)
    load_contract("rejected").check(rejected)
    assert good.column("row").to_pylist() == [0, 1, 2, 3, 5, 7, 8, 9, 10, 11]
    first, second = rejected.to_pylist()
    assert [first["file"], second["file"]] == ["4.csv", "6.csv"]
    assert (first["row"], first["reason"]) == (4, "no_tokens")
    assert "no G magnitude" in first["detail"]
    assert (second["row"], second["reason"]) == (6, "no_tokens")
    assert "no coefficient is relevant" in second["detail"]


def test_large_identifiers_stay_exact():
    top = 2**63 - 1
    seen = Duplicates(np.array([top - 1]))
    assert seen.repeated(np.array([top, top - 1, top])).tolist() == [False, True, True]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.integers(1, 40), max_size=12), max_size=8))
def test_duplicates_are_those_of_a_python_set(pieces):
    seen, plain = Duplicates(), set()
    for piece in pieces:
        wanted = []
        for identifier in piece:
            wanted.append(identifier in plain)
            plain.add(identifier)
        assert seen.repeated(np.array(piece, dtype=np.int64)).tolist() == wanted
