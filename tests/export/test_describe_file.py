"""What a file is, what would be read of it, and what is missing."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.paths import ARCHIVE, CORRELATED, DATA, EXAMPLES

from catalogproc.errors import CatalogprocError, JobError
from catalogproc.export.describe import describe
from catalogproc.export.sections import Section


def sections(path: Path) -> dict[str, Section]:
    return {section.title: section for section in describe(str(path))}


def facts(path: Path) -> dict[str, str]:
    first, *_ = describe(str(path))
    assert first.title == str(path)
    return {row[0]: row[1] for row in first.rows}


def test_spectra_of_the_archive() -> None:
    path = EXAMPLES / "xp_continuous_000.parquet"
    known = facts(path)
    assert known["what it is"].startswith("XP continuous spectra")
    assert (known["format"], known["rows"]) == ("Parquet", "500")
    assert "Gaia DR3" in known["Gaia release"]
    parts = sections(path)
    read = {row[0] for row in parts["columns that are read"].rows}
    assert read == set(pq.read_schema(path).names)
    assert "Correlations" in parts["missing"].text
    missing = parts["missing, unless --gaia-source has it"].text
    assert "phot_g_mean_mag" in missing
    assert "RUWE (ruwe)" in missing
    assert "synthesised" in missing


@pytest.mark.parametrize("ending", ["csv", "ecsv", "fits", "xml"])
def test_every_format_says_the_same_spectra(ending: str) -> None:
    path = ARCHIVE / f"XP_CONTINUOUS_RAW.{ending}"
    known, parts = facts(path), sections(path)
    assert known["what it is"].startswith("XP continuous spectra")
    assert known["spectra of the first rows"].startswith("55 BP")
    assert "bp_coefficient_correlations" in {row[0] for row in parts["columns that are read"].rows}
    assert "bp_chi_squared" in parts["columns that are not read"].text


def test_a_column_per_element_is_read_and_says_where_it_stands() -> None:
    parts = sections(DATA / "user_inputs" / "twenty_stars.fits")
    held = {row[0]: row[1] for row in parts["columns that are read"].rows}
    assert held["bp_coefficients"] == "bp_coeff_0 ... bp_coeff_54"
    assert held["rp_coefficient_errors"] == "e_rp_coeff_0 ... e_rp_coeff_54"
    assert held["source_id"] == ""
    assert "columns that are not read" not in parts


def test_a_gaia_source_table() -> None:
    path = CORRELATED / "gaia_source_30.parquet"
    assert "by source_id" in facts(path)["what it is"]
    parts = sections(path)
    read = {row[0]: row[2] for row in parts["columns that are read"].rows}
    assert read["parallax"] == "mas (assumed)"
    assert parts["columns that are not read"].text == "pmra, pmdec, ref_epoch"
    assert "ruwe" in parts["missing"].text


def test_a_table_of_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("Teff,m_h,log(g),vsini\n4800,-0.1,2.5,3\n")
    assert "labels" in facts(path)["what it is"]
    parts = sections(path)
    assert [row[0] for row in parts["columns that are read"].rows] == ["Teff", "m_h"]
    assert parts["columns that are not read"].text == ("log(g) (did you mean logg?), vsini")


def test_a_table_of_nothing_and_what_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"colour": [1.0]}), path)
    assert facts(path)["what it is"] == "a table of which nothing is read"
    assert "wanted: " in sections(path)["why"].text
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    with pytest.raises(CatalogprocError):
        describe(str(tmp_path / "picture.png"))
    with pytest.raises(JobError, match="nothing of that name"):
        describe(str(tmp_path / "absent.parquet"))


@pytest.mark.parametrize("word", ["vocabulary", "tokens"])
def test_the_vocabulary_lists_every_token_that_is_no_coefficient(word: str) -> None:
    tokens, derived = describe(word)
    names = [row[0] for row in tokens.rows]
    assert {"teff", "logg", "mass", "log_age", "bprp"} <= set(names)
    assert "bp0 ... bp54" in names
    assert [row[0] for row in derived.rows] == ["age", "ebv", "dist"]
