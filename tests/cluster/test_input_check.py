"""`check` opens the input as `run` does; an input without stars is no success."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.bundles import tiny_bundle
from support.paths import DATA

from catalogproc.cluster.input_check import input_lines
from catalogproc.cluster.plan import check, make_plan
from catalogproc.cluster.run import run
from catalogproc.cluster.spec import ClusterConfig, RunSpec
from catalogproc.errors import Refusal
from catalogproc.vocabulary import load_vocabulary

SPECTRA = DATA / "user_inputs" / "xp6.parquet"
JOINED = DATA / "user_inputs" / "join_left.parquet"
NAMES = "bp_coefficients,bp_coefficient_errors,rp_coefficients,rp_coefficient_errors"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle").path


@pytest.fixture
def no_spectra(tmp_path: Path) -> Path:
    path = tmp_path / "no_spectra.csv"
    path.write_text(f"source_id,{NAMES}\n5,,,,\n6,,,,\n")
    return path


def spec_of(folder: Path, bundle: Path, *inputs: Path) -> RunSpec:
    cluster = ClusterConfig(workers=1, device="cpu")
    return RunSpec([*inputs], folder / "out", model=bundle, cluster=cluster)


def test_an_input_of_which_nothing_would_be_written_is_refused_by_check(
    tmp_path: Path, bundle: Path, no_spectra: Path
) -> None:
    with pytest.raises(Refusal, match="2 no_coefficients") as caught:
        check(make_plan(spec_of(tmp_path, bundle, no_spectra)))
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_check_says_which_file_has_no_stars_and_how_many_rows_are_accepted(
    no_spectra: Path,
) -> None:
    lines = input_lines([SPECTRA, JOINED, no_spectra], load_vocabulary())
    assert lines[0].endswith("no_spectra.csv: every one of the first rows is rejected: "
                             "2 no_coefficients")  # fmt: skip
    assert lines[1] == (
        "no unit stated in 3 files of spectra, assumed: bp_coefficients, bp_coefficient_errors, "
        "rp_coefficients, rp_coefficient_errors [electron.s**-1]"
    )
    assert lines[2] == "10 of the first 14 rows accepted"


def test_a_unit_that_the_spectra_state_is_not_assumed(tmp_path: Path) -> None:
    table = pq.read_table(SPECTRA)
    fields = [
        field.with_metadata({"unit": "electron/s"}) if "coefficient" in field.name else field
        for field in table.schema
    ]
    pq.write_table(table.cast(pa.schema(fields)), tmp_path / "xp.parquet")
    assert input_lines([tmp_path / "xp.parquet"], load_vocabulary()) == [
        "6 of the first 6 rows accepted"
    ]


def test_a_file_of_which_every_row_is_rejected_ends_a_run_with_exit_code_1(
    tmp_path: Path, bundle: Path, no_spectra: Path
) -> None:
    result = run(make_plan(spec_of(tmp_path, bundle, SPECTRA, no_spectra)))
    assert (result.rows_written, result.rows_rejected, result.exit_code) == (6, 2, 1)
    assert result.files_rejected == (str(no_spectra),)
    assert f"every row rejected of: {no_spectra}" in result.lines()
    assert "run the same command again" not in "".join(result.lines())


def test_check_says_what_an_unreadable_file_is_and_what_to_do(tmp_path: Path, bundle: Path) -> None:
    page = tmp_path / "stars.csv"
    page.write_text("<!DOCTYPE html><html>503</html>")
    with pytest.raises(Refusal, match=r"found: a web page") as caught:
        check(make_plan(spec_of(tmp_path, bundle, page)))
    assert "error page" in (caught.value.advice or "")
    lines = input_lines([page, SPECTRA], load_vocabulary())
    assert lines[0] == f"{page}: the file is not what its name says (found a web page)"
