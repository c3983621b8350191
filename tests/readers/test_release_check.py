"""The release of a file of spectra: by lengths and basis functions."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from astropy.table import Table
from support.releases import IDS, cut, next_spectra, own_release, with_ids
from support.xp_files import (
    ARCHIVE,
    ARRAYS,
    COLUMNS,
    CORRELATED,
    EXAMPLES,
    parquet_bytes,
    put,
    real,
    spectra,
)

from catalogproc.errors import InputError, ReleaseError
from catalogproc.readers.formats import open_table
from catalogproc.readers.release_check import check_release, file_spectra, release_of
from catalogproc.readers.stated_release import stated_release
from catalogproc.readers.xp import read_spectra
from catalogproc.release import load_release
from catalogproc.vocabulary import load_vocabulary

DR3 = {"bp": (55, 56), "rp": (55, 57)}
MISSING_BP = "XP_CONTINUOUS_RAW_with_missing_BP"


def written(folder: Path, table: pa.Table) -> Path:
    return put(folder, "a.parquet", parquet_bytes(table))


@pytest.mark.parametrize("suffix", ["fits", "csv", "ecsv", "xml"])
def test_the_archives_files_state_their_basis(suffix: str) -> None:
    path = ARCHIVE / f"XP_CONTINUOUS_RAW.{suffix}"
    assert file_spectra(path).usual == DR3
    assert spectra(path).column("bp_basis_function_id").to_pylist() == [56, 56]
    check_release(path, load_vocabulary())
    assert release_of(path) == load_release("dr3")


@pytest.mark.parametrize("suffix", ["fits", "csv"])
def test_an_absent_band_tells_nothing(suffix: str) -> None:
    path = ARCHIVE / f"{MISSING_BP}.{suffix}"
    check_release(path, load_vocabulary())
    assert file_spectra(path).usual["rp"] == (55, 57)


@pytest.mark.parametrize("path", [CORRELATED, EXAMPLES / "xp_continuous_000.parquet"])
def test_lengths_alone_are_enough(path: Path) -> None:
    assert {band: length for band, (length, _) in file_spectra(path).usual.items()} == {
        "bp": 55, "rp": 55,
    }  # fmt: skip
    check_release(path, load_vocabulary())
    assert release_of(path).name == "dr3"


def test_spectra_of_another_length_are_refused_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, next_spectra(9))
    with pytest.raises(ReleaseError, match="does not read") as caught:
        check_release(path, load_vocabulary())
    assert (
        caught.value.details["wanted"]
        == "Gaia DR3: 55 BP (basis 56), 55 RP (basis 57) coefficients"
    )
    assert caught.value.details["found"] == (
        "Gaia DR4: 51 BP (basis 901), 55 RP (basis 902) coefficients"
    )
    assert "trained on Gaia DR4 (--model)" in str(caught.value)


def test_the_same_lengths_in_another_basis_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, with_ids(real(9), {"bp": 901, "rp": 57}))
    with pytest.raises(ReleaseError, match=r"55 BP \(basis 901\)"):
        check_release(path, load_vocabulary())


def test_one_row_of_the_models_length_admits_no_other_file(tmp_path: Path) -> None:
    """55 BP coefficients in the first of 1,000 rows, 51 in all others."""
    shorter, (first,) = cut(real(30), {"bp": 51, "rp": 55}), real(1).to_batches()
    table = pa.concat_tables(
        [pa.Table.from_batches([first]).cast(shorter.schema), shorter.slice(1)]
    )
    with pytest.raises(ReleaseError, match="does not read"):
        check_release(written(tmp_path, table), load_vocabulary())


def test_single_rows_of_another_kind_are_left_to_the_screening(tmp_path: Path) -> None:
    table = real(9)
    odd = pa.concat_tables([cut(table.slice(0, 1), {"bp": 51, "rp": 55}), table.slice(1)])
    check_release(written(tmp_path, odd), load_vocabulary())
    none = dict.fromkeys(ARRAYS[:2], pa.nulls(9, pa.list_(pa.float64())))
    only_rp = pa.table({n: none.get(n, table.column(n)) for n in COLUMNS})
    path = written(tmp_path, only_rp)
    check_release(path, load_vocabulary())
    assert file_spectra(path).usual == {"rp": (55, None)}


def test_a_users_release_is_read_and_held_against_the_file(tmp_path: Path) -> None:
    own = own_release(tmp_path)
    path = written(tmp_path, next_spectra(9))
    check_release(path, load_vocabulary(release=own))
    assert release_of(path, own) == own
    assert release_of(path).name == "dr4"
    with pytest.raises(ReleaseError, match="another Gaia release"):
        release_of(path, load_release("dr3"))
    other = with_ids(cut(real(9), {"bp": 51, "rp": 55}), {"bp": IDS["bp"], "rp": 903})
    with pytest.raises(ReleaseError, match=r"55 RP \(basis 903\)"):
        check_release(written(tmp_path, other), load_vocabulary(release=own))


def test_names_of_columns_come_from_the_release(tmp_path: Path) -> None:
    named = "[columns.xp_continuous_mean_spectrum]\nbp_coefficients = 'c_of_bp'\n"
    own = own_release(tmp_path, named)
    table = next_spectra(5)
    names = ["c_of_bp" if n == "bp_coefficients" else n for n in table.column_names]
    path = written(tmp_path, table.rename_columns(names))
    assert file_spectra(path, own).usual["bp"] == (51, IDS["bp"])


def test_a_column_of_another_name_is_named_with_the_line_to_write(tmp_path: Path) -> None:
    table = next_spectra(3)
    names = ["bp_mean_coefficients" if n == "bp_coefficients" else n for n in table.column_names]
    path = put(tmp_path, "a.parquet", parquet_bytes(table.rename_columns(names)))
    with pytest.raises(InputError, match=r"xp_continuous_mean_spectrum\] bp_coefficients = "):
        list(read_spectra(path))
    # A table of something else is no matter of names.
    other = put(tmp_path, "b.parquet", parquet_bytes(table.select(["source_id"])))
    with pytest.raises(InputError) as caught:
        list(read_spectra(other))
    assert "ITS NAME" not in (caught.value.advice or "")


def test_spectra_of_no_known_release(tmp_path: Path) -> None:
    path = written(tmp_path, cut(real(9), {"bp": 40, "rp": 40}))
    with pytest.raises(ReleaseError, match="--release") as caught:
        release_of(path)
    assert caught.value.found == "40 BP, 40 RP coefficients"


def named(folder: Path, kind: str, text: str) -> Path:
    """Real spectra in a file of some format whose header names a release."""
    table = Table.read(ARCHIVE / "XP_CONTINUOUS_RAW.fits")
    if kind == "designation":
        rows = real(3).to_pydict() | {"source_id": [f"{text} {i}" for i in (4, 5, 6)]}
        return put(folder, "a.parquet", parquet_bytes(pa.table(rows)))
    if kind == "parquet":
        return put(
            folder, "a.parquet", parquet_bytes(real(3).replace_schema_metadata({"release": text}))
        )
    path = folder / f"a.{kind}"
    if kind == "fits":
        table.meta["COMMENT"] = f"spectra of {text}"
        table.write(path)
    elif kind == "ecsv":
        kept = (ARCHIVE / "XP_CONTINUOUS_RAW.ecsv").read_text()
        path.write_text(kept.replace("# datatype:", f"# meta:\n#   origin: {text}\n# datatype:", 1))
    else:
        kept = (ARCHIVE / "XP_CONTINUOUS_RAW.xml").read_text()
        path.write_text(kept.replace("<TABLE>", f"<TABLE><DESCRIPTION>{text}</DESCRIPTION>", 1))
    return path


@pytest.mark.parametrize(
    ("kind", "ours", "other"),
    [
        ("fits", "Gaia DR3", "Gaia DR4"),
        ("ecsv", "Gaia DR3", "Gaia DR4"),
        ("xml", "gaiadr3.xp_continuous", "gaiadr4.xp_continuous"),
        ("parquet", "dr3", "dr4"),
        ("designation", "Gaia EDR3", "Gaia DR4"),
    ],
)
def test_a_header_that_names_another_release_is_believed(
    tmp_path: Path, kind: str, ours: str, other: str
) -> None:
    check_release(named(tmp_path, kind, ours), load_vocabulary())
    (tmp_path / "other").mkdir()
    path = named(tmp_path / "other", kind, other)
    with pytest.raises(ReleaseError, match=r"names another Gaia release(.|\n)*found: dr4"):
        check_release(path, load_vocabulary())


def test_descriptions_of_columns_and_several_names_say_nothing(tmp_path: Path) -> None:
    path = named(tmp_path, "xml", "crossmatch of Gaia DR2 with Gaia DR3")
    assert stated_release(open_table(path)) is None
    text = (ARCHIVE / "XP_CONTINUOUS_RAW.ecsv").read_text()
    path = tmp_path / "a.ecsv"
    path.write_text(text.replace("Unique source identifier", "as in Gaia DR2", 1))
    assert stated_release(open_table(path)) is None
