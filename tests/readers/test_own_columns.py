"""Columns of gaia_source that stand in the spectra's own file: the same rows, units, masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import real_stars
from support.paths import EXAMPLES

from catalogproc.datasets.star_reader import StarFiles, all_inputs_job, read_stars
from catalogproc.readers import auxiliary_rows
from catalogproc.readers.gaia_source import NO_TABLES, open_auxiliary
from catalogproc.readers.joined_rows import CONTRADICTS, OWN, REPEATED, STARS, UNREADABLE
from catalogproc.readers.xp import read_spectra, split_own
from catalogproc.release import load_release
from catalogproc.vocabulary import load_vocabulary

FORMATS = {"xp.fits": "fits", "xp.vot": "votable", "xp.ecsv": "ascii.ecsv"}


def with_own(path: Path, **columns: object) -> pa.Table:
    """30 real spectra, and what stands beside them in their file."""
    table = real_stars.bright().select(
        ["source_id", "bp_coefficients", "bp_coefficient_errors", "rp_coefficients",
         "rp_coefficient_errors", "bp_n_relevant_bases", "rp_n_relevant_bases"]
    )  # fmt: skip
    for name, values in columns.items():
        array = values if isinstance(values, pa.Array) else pa.array(values)
        table = table.append_column(name, array)
    pq.write_table(table, path)
    return table


def read_own(path: Path, **options: int) -> list[tuple[pa.RecordBatch, pa.Table | None]]:
    return [split_own(batch) for batch in read_spectra(path, own=True, **options)]


def test_own_columns_are_read_in_the_rows_of_the_spectra(tmp_path: Path) -> None:
    plx = np.arange(30) + 0.5
    path = tmp_path / "xp.parquet"
    table = with_own(path, plx=plx, Jmag=np.arange(30), extra=plx, B=plx)
    batches = read_own(path, batch_rows=7, skip=3)
    assert [batch.num_rows for batch, _ in batches] == [7, 7, 7, 6]
    own = pa.concat_tables([own for _, own in batches])
    assert own.column_names == ["parallax", "j_m", "own_fault"]
    assert own.column("parallax").to_pylist() == plx[3:].tolist()
    assert own.column("j_m").to_pylist() == list(range(3, 30))
    plain = list(read_spectra(path, batch_rows=7, skip=3))
    assert all(a.equals(b) for (a, _), b in zip(batches, plain, strict=True))
    ids = pa.concat_arrays([batch.column("source_id") for batch, _ in batches])
    assert ids.equals(table.column("source_id").combine_chunks().slice(3))


def test_a_file_without_such_columns_costs_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auxiliary_rows, "find_column", None)
    monkeypatch.setattr(auxiliary_rows, "_found_columns", None)
    for batch, own in read_own(EXAMPLES / "xp_continuous_000.parquet"):
        assert own is None
        assert batch.schema.names[-1] == "fault"


def test_stated_units_and_masks_hold_for_own_columns(tmp_path: Path) -> None:
    from astropy import units
    from astropy.table import MaskedColumn, Table

    table = with_own(tmp_path / "plain.parquet")
    made = Table({"source_id": table.column("source_id").to_numpy()})
    for name in table.column_names[1:]:
        made[name] = np.array(table.column(name).to_pylist())
    made["parallax"] = MaskedColumn(np.full(30, 0.004), mask=np.arange(30) < 2, unit=units.arcsec)
    for name in FORMATS:
        made.write(tmp_path / name, format=FORMATS[name])
        ((_, own),) = read_own(tmp_path / name)
        assert own is not None
        parallax = own.column("parallax").to_pylist()
        assert parallax[:2] == [None, None], name
        assert parallax[2:] == pytest.approx([4.0] * 28), name


def test_what_cannot_be_read_is_missing_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "xp.parquet"
    words = ["1.5", "?", *["2"] * 28]
    table = with_own(path, parallax=words, ruwe=["?", "?", *["1"] * 28])
    ((batch, own),) = read_own(path)
    joined = NO_TABLES.join(batch.column("source_id"), own)
    assert joined.rows.column("parallax").to_pylist()[:3] == [1.5, None, 2.0]
    assert joined.rows.column("source_id").equals(table.column("source_id"))
    assert joined.account == {
        OWN: {"parallax": 29, "ruwe": 28, UNREADABLE + "parallax": 1, UNREADABLE + "ruwe": 2}
    }
    assert not joined.found.any()


def test_a_given_table_counts_before_own_columns_star_by_star(tmp_path: Path) -> None:
    path, given = tmp_path / "xp.parquet", tmp_path / "gaia.parquet"
    table = with_own(path, parallax=np.full(30, 1.0), ruwe=np.full(30, 1.1, np.float32))
    ids = table.column("source_id").to_numpy()
    values = [2.0, None, *[1.0] * 8]
    pq.write_table(pa.table({"source_id": ids[:10], "parallax": values, "ra": [9.0] * 10}), given)
    auxiliary = open_auxiliary([given], None)
    ((batch, own),) = read_own(path)
    joined = auxiliary.join(batch.column("source_id"), own)
    assert joined.rows.column("parallax").to_pylist() == [2.0, *[1.0] * 29]
    assert joined.rows.column("ruwe").to_pylist() == pytest.approx([1.1] * 30)
    assert joined.rows.column("ra").to_pylist() == [9.0] * 10 + [None] * 20
    assert joined.found.tolist() == [True] * 10 + [False] * 20
    assert joined.account == {
        str(given): {STARS: 10, "parallax": 9, "ra": 10},
        OWN: {"parallax": 21, "ruwe": 30, CONTRADICTS + "parallax": 1},
    }


def test_evaluation_and_spectra_commands_read_own_columns_as_a_run_does(tmp_path: Path) -> None:
    path, vocabulary = tmp_path / "xp.parquet", load_vocabulary()
    with_own(path, phot_g_mean_mag=np.full(30, 7.25), parallax=np.full(30, 4.0))
    ((_, tokens),) = read_stars(StarFiles([path]), vocabulary, all_inputs_job(vocabulary))
    assert tokens.g_mag.tolist() == [7.25] * 30
    assert tokens.parallax_zpc == pytest.approx([4.04] * 30)


def put(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_tables_of_different_columns_are_joined_star_by_star(tmp_path: Path) -> None:
    """The first table that has a value counts; others that differ are counted, each by itself."""
    source = put(
        tmp_path / "source.parquet",
        source_id=[1, 2, 3, 4],
        parallax=[1.0, None, 3.0, 4.0],
        phot_g_mean_mag=np.float32([9.1, 9.2, 9.3, 9.4]),
    )
    photometry = put(
        tmp_path / "photometry.parquet",
        source_id=[4, 2, 5],
        phot_g_mean_mag=np.float32([9.4, 8.0, 9.5]).astype(float),
        j_m=[7.0, 7.1, 7.2],
    )
    others = put(tmp_path / "others.parquet", source_id=[2, 3, 6], parallax=[2.5, 3.5, 6.5],
                 ruwe=[1.0, 1.1, 1.2])  # fmt: skip
    auxiliary = open_auxiliary([source, photometry, others], tmp_path / "staged")
    joined = auxiliary.join(pa.array([6, 5, 4, 3, 2, 1, 7]))
    rows = joined.rows.to_pydict()
    assert rows["parallax"] == [6.5, None, 4.0, 3.0, 2.5, 1.0, None]
    g_mag = [None, 9.5, 9.4, 9.3, 9.2, 9.1, None]
    for found, wanted in zip(rows["phot_g_mean_mag"], g_mag, strict=True):
        assert found == (None if wanted is None else pytest.approx(wanted, rel=1e-6))
    assert rows["j_m"] == pytest.approx([None, 7.2, 7.0, None, 7.1, None, None])
    assert joined.found.tolist() == [True] * 6 + [False]
    assert joined.account == {
        str(source): {STARS: 4, "parallax": 3, "phot_g_mean_mag": 4},
        str(photometry): {
            STARS: 3, "phot_g_mean_mag": 1, "j_m": 3, CONTRADICTS + "phot_g_mean_mag": 1,
        },
        str(others): {STARS: 3, "parallax": 2, "ruwe": 3, CONTRADICTS + "parallax": 1},
    }  # fmt: skip
    # The other order: now the last table's parallaxes count.
    turned = open_auxiliary([others, source], tmp_path / "staged").match(pa.array([3]))
    assert turned.column("parallax").to_pylist() == [3.5]


def test_a_release_says_what_columns_are_called(tmp_path: Path) -> None:
    """A line of TOML is enough for a column that the next release renames."""
    (tmp_path / "mine.toml").write_text(
        'version = 1\nname = "mine"\nlike = "dr3"\n'
        '[columns.gaia_source]\nparallax = "Astrometric_Plx"\nruwe = "fit_quality"\n'
    )
    release = load_release(tmp_path / "mine.toml")
    path, given = tmp_path / "xp.parquet", tmp_path / "gaia.csv"
    table = with_own(path, FIT_QUALITY=np.full(30, 1.25), parallax=np.full(30, 9.0))
    ids = table.column("source_id").to_numpy()
    given.write_text("source_id,astrometric_plx\n" + "".join(f"{i},2.5\n" for i in ids))
    (batch,) = read_spectra(path, own=True, release=release)
    spectra, own = split_own(batch)
    for scan, staging in ((True, None), (False, tmp_path / "staged")):
        auxiliary = open_auxiliary([given], staging, release)
        rows = auxiliary.join(spectra.column("source_id"), own, scan=scan).rows
        assert rows.column("parallax").to_pylist() == [2.5] * 30
        assert rows.column("ruwe").to_pylist() == [1.25] * 30


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_repeated_rows_are_one_and_counted_whatever_the_pieces(tmp_path: Path, suffix: str) -> None:
    ids = np.sort(np.tile(np.arange(1, 1001), 3))[: 2500 + 1]
    table = pa.table({"source_id": ids, "parallax": ids / 8})
    path = tmp_path / f"a.{suffix}"
    if suffix == "csv":
        table.to_pandas().to_csv(path, index=False)
    else:
        pq.write_table(table, path, row_group_size=100)
    staged = open_auxiliary([path], tmp_path / "staged")
    wanted = np.random.default_rng(1).permutation(np.arange(1, 1101))
    copies = {star: int((ids == star).sum()) for star in wanted}
    found, repeated = 0, 0
    for part in np.array_split(wanted, 7):
        joined = staged.join(pa.array(part))
        known = part[part <= ids.max()]
        parallax = joined.rows.column("parallax").drop_null().to_pylist()
        assert parallax == [star / 8 for star in known]
        counts = joined.account[str(path)]
        assert counts[REPEATED] == sum(copies[star] - 1 for star in known)
        found, repeated = found + counts[STARS], repeated + counts[REPEATED]
    assert found + repeated == len(ids)
    # Before a run the same is read without staging.
    looked = open_auxiliary([path], None).join(pa.array(wanted), scan=True)
    assert looked.account[str(path)][STARS] == found
    assert looked.account[str(path)][REPEATED] == repeated
