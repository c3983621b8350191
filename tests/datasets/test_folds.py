"""One star, one fold, under whatever name."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalogproc.datasets.folds import TEST_FOLD, StarNames, fold_of, hashed, positions
from catalogproc.datasets.seismic import read_seismic
from catalogproc.resources import shipped


def names(*rows: tuple[int, str | None, str | None, bool]) -> StarNames:
    source_id, designation, name, test = zip(*rows, strict=True)
    return StarNames(
        np.array(source_id, dtype=np.int64),
        pa.array(designation, pa.string()),
        pa.array(name, pa.string()),
        np.array(test),
    )


def key_in(fold: int, prefix: str = "KIC ") -> str:
    return next(f"{prefix}{n}" for n in range(100) if fold_of(f"{prefix}{n}") == fold)


def id_in(fold: int) -> int:
    return next(n for n in range(1, 100) if fold_of(str(n)) == fold)


def test_the_fold_is_the_published_rule() -> None:
    digits = hashlib.sha256(b"5853418002145112704").hexdigest()
    assert fold_of("5853418002145112704") == int(digits[:8], 16) % 5


def test_rows_of_a_star_are_found_by_any_name_through_others() -> None:
    rows = names(
        (7, None, None, False),
        (0, "2M14300843-6315371", "KIC 1", False),
        (7, "2M14300843-6315371", None, False),
        (0, None, "KIC 1", False),
        (0, None, "KIC 2", False),
        (0, None, None, False),
    )
    stars = rows.stars()
    assert len(set(stars[:4])) == 1
    assert len(set(stars)) == 3


@pytest.mark.parametrize(("second_id", "same"), [(0, True), (8, False)])
def test_close_positions_are_one_star_unless_gaia_has_two(second_id: int, same: bool) -> None:
    # 0.15 s of right ascension at -63 degrees: 1.0 arcsec.
    rows = names(
        (7, "2M14300843-6315371", None, False), (second_id, "AP14300858-6315371", None, False)
    )
    assert (len(set(rows.stars())) == 1) == same
    # 0.4 s are 2.7 arcsec.
    far = names((7, "2M14300843-6315371", None, False), (0, "AP14300883-6315371", None, False))
    assert len(set(far.stars())) == 2


def test_a_star_across_right_ascension_zero_is_one() -> None:
    rows = names((0, "2M23595999+0000000", None, False), (0, "2M00000005+0000000", None, False))
    assert len(set(rows.stars())) == 1


def test_names_give_the_fold_in_their_order() -> None:
    source_id, name = id_in(2), key_in(3)
    rows = names(
        (0, None, name, False), (source_id, None, name, False), (0, None, key_in(4), False)
    )
    folds = rows.folds(rows.stars())
    assert folds.tolist() == [2, 2, 4]


def test_a_star_that_any_table_tests_on_is_in_the_test_fold() -> None:
    source_id, designation = id_in(2), "2M14300843-6315371"
    rows = names((source_id, designation, None, False), (0, designation, None, True))
    assert rows.folds(rows.stars()).tolist() == [TEST_FOLD, TEST_FOLD]


def test_the_order_of_the_rows_changes_nothing() -> None:
    table = read_seismic().names
    some = table.take(np.arange(0, len(table), 20))
    order = np.random.default_rng(1).permutation(len(some))
    mixed = some.take(order)
    assert np.array_equal(some.folds(some.stars())[order], mixed.folds(mixed.stars()))


def test_the_rule_reproduces_the_published_test_column() -> None:
    table = read_seismic().names
    blind = StarNames(
        table.source_id, table.designation, table.name, np.zeros(len(table), dtype=bool)
    )
    folds = blind.folds(blind.stars())
    assert np.array_equal(folds == TEST_FOLD, table.test)
    ages = pq.read_table(shipped("grids") / "hasselquist_ages.parquet")
    rule = [fold_of(str(star)) == TEST_FOLD for star in ages["source_id"].to_pylist()]
    assert rule == ages["test"].to_pylist()


def test_positions_of_designations() -> None:
    found = positions(pa.array(["2M06000000+3000000", "AP06000000-3000000", "KIC 5", None]))
    assert found[0] == pytest.approx([0, np.cos(np.pi / 6), 0.5], abs=1e-12)
    assert found[1] == pytest.approx([0, np.cos(np.pi / 6), -0.5], abs=1e-12)
    assert np.isnan(found[2:]).all()


def test_numbers_of_stars_without_an_identifier_are_positive_and_distinct() -> None:
    table = read_seismic().names
    numbers = hashed(table)
    assert (numbers > 0).all()
    columns = (table.designation.to_pylist(), table.name.to_pylist())
    keys = {d or n for d, n in zip(*columns, strict=True)}
    assert len(set(numbers.tolist())) == len(keys)
