"""Listed and selected stars from a local TAP and DataLink service."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.archive_server import sorted_stars
from support.paths import ROOT
from support.tap_server import LocalServices, local_services, serving
from support.xp_files import COLUMNS, same

from catalogproc.cli.main import main
from catalogproc.errors import DownloadError, InputError, JobError
from catalogproc.fetch.adql import auxiliary_query, selection_query
from catalogproc.fetch.by_list import ListSpec, fetch_list
from catalogproc.fetch.retries import Retries
from catalogproc.readers.chunks import expand
from catalogproc.readers.gaia_source import open_auxiliary
from catalogproc.release import load_release

QUICK = Retries(tries=3, pause=0.01, longest_pause=0.05, silence=5.0)
STARS = sorted_stars(30)
IDS = STARS.column("source_id").to_pylist()
WITHOUT = [one + 1 for one in IDS[:5]]
UNKNOWN = [12345, 67890]


def small_calls(size: int = 12):
    """DR3, whose DataLink takes a few stars at once."""
    release = load_release()
    assert release.archive is not None
    assert release.archive.services is not None
    services = replace(release.archive.services, ids_per_call=size)
    return replace(release, archive=replace(release.archive, services=services))


@pytest.fixture
def local():
    with serving(local_services(STARS)) as services:
        yield services


def listed(folder: Path, ids: list[int]) -> Path:
    path = folder / "list.csv"
    path.write_text("Source,note\n" + "".join(f"{one},x\n" for one in ids))
    return path


def spec(local: LocalServices, folder: Path, **options) -> ListSpec:
    options = {"release": small_calls(), "retries": QUICK} | options
    return ListSpec(folder / "out", tap=local.tap, datalink=local.datalink, **options)


def told(folder: Path) -> dict[int, str]:
    table = pq.read_table(folder / "out" / "stars.parquet")
    return dict(
        zip(*(table.column(name).to_pylist() for name in ("source_id", "status")), strict=True)
    )


def spectra(folder: Path) -> pa.Table:
    parts = [pq.read_table(path) for path in expand([folder / "out" / "xp_continuous"])]
    return pa.concat_tables(parts).select(COLUMNS).sort_by("source_id")


def test_every_star_of_a_list_is_accounted_for(local, tmp_path: Path) -> None:
    ids = [*reversed(IDS), *WITHOUT, *UNKNOWN, IDS[0], IDS[0]]
    done = fetch_list(spec(local, tmp_path, ids=listed(tmp_path, ids)))
    assert done.stars == {"found": 30, "no_xp": 5, "unknown": 2, "failed": 0}
    assert (done.repeated, done.exit_code) == (2, 0)
    wanted = dict.fromkeys(IDS, "found") | dict.fromkeys(WITHOUT, "no_xp")
    assert told(tmp_path) == wanted | dict.fromkeys(UNKNOWN, "unknown")
    assert same(spectra(tmp_path), STARS)
    assert max(map(len, local.asked)) <= 12
    assert (
        sorted(star for call in local.asked for star in call) == IDS
    )  # those without a spectrum are not asked for
    assert local.deleted == len(local.jobs) == 4


def test_the_auxiliary_table_has_gaia_and_2mass(local, tmp_path: Path) -> None:
    fetch_list(spec(local, tmp_path, ids=listed(tmp_path, IDS + WITHOUT)))
    files = expand([tmp_path / "out" / "gaia_source"])
    rows = open_auxiliary(files, tmp_path / "stage").match(STARS.column("source_id"))
    numbers = range(30)
    assert rows.column("parallax").to_pylist() == [number / 10 for number in numbers]
    j_m = [None if number % 2 else pytest.approx(9 + number / 10) for number in numbers]
    assert rows.column("j_m").to_pylist() == j_m
    assert set(rows.column("ph_qual").to_pylist()) == {"AAA", None}
    assert sum(pq.read_metadata(file).num_rows for file in files) == 30


def test_a_second_call_asks_only_for_what_failed(local, tmp_path: Path) -> None:
    local.withheld = {IDS[3]}
    asked = spec(local, tmp_path, ids=listed(tmp_path, IDS))
    first = fetch_list(asked)
    assert (first.stars["failed"], first.stars["found"], first.exit_code) == (1, 29, 1)
    assert told(tmp_path)[IDS[3]] == "failed"
    local.withheld.clear()
    local.asked.clear()
    second = fetch_list(asked)
    assert (second.stars["found"], second.exit_code) == (30, 0)
    assert len(local.asked) == 1
    assert same(spectra(tmp_path), STARS)
    local.asked.clear()
    assert fetch_list(asked).stars["found"] == 30
    assert not local.asked


def test_a_list_of_strangers_is_no_fault(local, tmp_path: Path) -> None:
    done = fetch_list(spec(local, tmp_path, ids=listed(tmp_path, UNKNOWN)))
    assert done.stars == {"found": 0, "no_xp": 0, "unknown": 2, "failed": 0}
    assert not local.asked


def test_faults_that_pass_are_tried_again(local, tmp_path: Path) -> None:
    half = local.zip_of(IDS)[:2000]
    local.answers = [(503, b"down"), (200, b"<html>maintenance</html>"), (200, half)]
    local.tap_faults = [500, 503]
    done = fetch_list(spec(local, tmp_path, ids=listed(tmp_path, IDS)))
    assert done.stars["found"] == 30
    assert same(spectra(tmp_path), STARS)


def test_a_batch_that_fails_fails_alone(local, tmp_path: Path) -> None:
    local.answers = [(400, b"no such release")]
    said: list[str] = []
    done = fetch_list(spec(local, tmp_path, ids=listed(tmp_path, IDS)), announce=said.append)
    assert done.stars == {"found": 18, "no_xp": 0, "unknown": 0, "failed": 12}
    assert "400" in said[0]
    assert "no such release" in said[0]


def test_stars_by_a_condition(local, tmp_path: Path) -> None:
    done = fetch_list(spec(local, tmp_path, select="phot_g_mean_mag < 11 AND parallax > 0.35"))
    assert done.stars["found"] == 6  # numbers 4 to 9
    assert list(told(tmp_path)) == IDS[4:10]
    jobs = len(local.jobs)
    fetch_list(spec(local, tmp_path, select="phot_g_mean_mag < 11 AND parallax > 0.35"))
    assert len(local.jobs) == jobs  # the list is kept
    with pytest.raises(JobError, match="another list"):
        fetch_list(spec(local, tmp_path, select="phot_g_mean_mag < 11"))


def test_the_ready_selection_of_giants(local, tmp_path: Path) -> None:
    fetch_list(spec(local, tmp_path, select="giants"))
    # By hand: parallax / error > 5 from number 26 on; there BP-RP > 0.9 and M_G > 4.6: none, and
    # brighter ones are added.
    assert told(tmp_path) == {}
    local.database.execute(
        "UPDATE gaiadr3.gaia_source SET phot_g_mean_mag = 9.9 WHERE parallax > 2.65"
    )
    (tmp_path / "out").rename(tmp_path / "before")
    fetch_list(spec(local, tmp_path, select="giants"))
    # M_G = 9.9 + 5 log10(plx) - 10 < 3 needs plx < 4.17 mas: numbers 27 to 29.
    assert list(told(tmp_path)) == IDS[27:]


def test_pixels_limit_a_condition(local) -> None:
    query = selection_query(load_release(), "ruwe < 1.4", [(0, 1), (7, 7)])
    size = 1 << 43
    assert f"BETWEEN 0 AND {2 * size - 1}" in query
    assert f"BETWEEN {7 * size} AND {8 * size - 1}" in query
    found = [row[0] for row in local.database.execute(query)]
    assert found == [star for star in IDS if star >> 43 in (0, 1, 7)]


@pytest.mark.parametrize("text", ["", "  ", "ruwe < 2) OR (1 = 1", "ruwe < 2; DROP TABLE x", "(a"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(JobError, match="condition"):
        selection_query(load_release(), text)


def test_a_wrong_condition_is_the_archive_s_to_refuse(local, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="no such column"):
        fetch_list(spec(local, tmp_path, select="brightness < 3"))


def test_results_may_come_compressed(local, tmp_path: Path) -> None:
    local.compressed = True
    done = fetch_list(spec(local, tmp_path, select="ruwe < 3"))
    assert done.stars["found"] == 30


@pytest.mark.parametrize("compressed", [False, True])
def test_a_result_that_was_cut_off_is_refused(local, tmp_path: Path, compressed: bool) -> None:
    local.overflow, local.compressed = True, compressed
    with pytest.raises(DownloadError, match="cut off"):
        fetch_list(spec(local, tmp_path, select="ruwe < 3"))


def test_lists_that_cannot_be_read(local, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    for text, word in (("name,x\na,1\n", "missing"), ("source_id,x\n1,1\n,2\n", "row 1")):
        path.write_text(text)
        with pytest.raises(InputError, match=word):
            fetch_list(spec(local, tmp_path, ids=path))
    with pytest.raises(JobError):
        ListSpec(tmp_path)


def test_the_query_names_each_column_of_the_release_once() -> None:
    release = load_release()
    query = auxiliary_query(release)
    for table in ("gaia_source", "tmass_original_valid"):
        for name in release.columns[table].values():
            alias = "g" if table == "gaia_source" else table
            assert query.count(f"{alias}.{name},") + query.count(f"{alias}.{name}\n") >= 1


def test_the_command_with_addresses_of_a_release_file(local, tmp_path: Path, capsys) -> None:
    own = tmp_path / "mirror.toml"
    own.write_text(
        'version = 1\nname = "dr3"\nlike = "dr3"\n[archive.services]\n'
        f'tap = "{local.tap}"\ndatalink = "{local.datalink}"\nids_per_call = 20\n'
    )
    assert load_release(own).hash == load_release().hash

    def command(*words: str) -> int:
        given = ("fetch", "--release", str(own), "--output", str(tmp_path / "out"), *words)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["catalogproc", *given])
            with pytest.raises(SystemExit) as ended:
                main()
        return int(ended.value.code or 0)

    stars = listed(tmp_path, IDS[:3] + WITHOUT[:1])
    assert command("--ids", str(stars), "--show-adql") == 0
    assert capsys.readouterr().out.strip() == auxiliary_query(load_release())
    assert not local.jobs
    assert command("--ids", str(stars)) == 0
    assert "4 stars: found 3, no_xp 1, unknown 0, failed 0" in capsys.readouterr().out
    assert same(spectra(tmp_path), STARS.slice(0, 3))
    assert command("--ids", str(stars), "--healpix", "3") == 2
    assert command("--show-adql") == 2
    assert command("--from-files") == 2
    assert command("--ids", str(stars), "--select", "giants") == 2


def test_the_page_has_the_queries_in_full() -> None:
    page = (ROOT / "docs" / "data.md").read_text()
    release = load_release()
    assert f"```sql\n{auxiliary_query(release)}\n```" in page
    assert f"```sql\n{selection_query(release, 'giants')}\n```" in page
