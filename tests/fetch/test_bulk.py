"""Bulk downloads against a local server with the archive's layout, and with its faults."""

from __future__ import annotations

import errno
import gzip
import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.archive_server import LIST, SOURCE, XP, Fault, LocalArchive, serving, small_archive
from support.archive_server import sorted_stars as stars
from support.paths import ROOT
from support.xp_files import ARCHIVE, COLUMNS, CORRELATIONS, agrees, plain_csv, same, zipped

from catalogproc.cli.main import main
from catalogproc.errors import DiskFullError, DownloadError, JobError, LockedError, ReleaseError
from catalogproc.fetch import disk_budget, http
from catalogproc.fetch.bulk import BulkSpec, fetch_bulk, plan_bulk
from catalogproc.fetch.retries import Retries
from catalogproc.io.atomic import write_error
from catalogproc.io.locks import Lock
from catalogproc.readers.chunks import expand
from catalogproc.readers.gaia_source import open_auxiliary
from catalogproc.release import load_release

QUICK = Retries(tries=3, pause=0.01, longest_pause=0.05, silence=1.0)


@pytest.fixture
def archive():
    with serving(small_archive()) as local:
        yield local


def spec(archive: LocalArchive, folder: Path, **options) -> BulkSpec:
    return BulkSpec(folder, base_url=archive.url, retries=QUICK, keep_free=0, **options)


def spectra(folder: Path) -> pa.Table:
    """What `run --input DIR` would read, by pyarrow alone."""
    files = expand([folder])
    return pa.concat_tables([pq.read_table(file) for file in files]).select(COLUMNS)


def paths(archive: LocalArchive, folder: str = XP) -> list[str]:
    return sorted(one for one in archive.files if one.startswith(f"/{folder}/") and "gz" in one)


def test_a_table_becomes_parquet_and_the_archive_s_files_go(archive, tmp_path: Path) -> None:
    seen = []
    done = fetch_bulk(spec(archive, tmp_path), lambda *told: seen.append(told))
    assert done.exit_code == 0
    assert same(spectra(tmp_path), stars())
    assert not any((tmp_path / "_partial").iterdir())
    assert "correlations" not in " ".join(pq.read_schema(expand([tmp_path])[0]).names)
    assert "60 stars" in seen[-1][2]
    assert "3 of 3 files" in seen[-1][2]
    for receipt in done.fetched:
        content = archive.files[receipt.url.removeprefix(archive.url)]
        assert (receipt.bytes, receipt.rows_read) == (len(content), receipt.rows_written)
        file = tmp_path / receipt.file
        assert json.loads((tmp_path / "_receipts" / f"{file.stem}.json").read_text())


def test_a_second_call_does_what_is_missing(archive, tmp_path: Path) -> None:
    fetch_bulk(spec(archive, tmp_path))
    archive.asked.clear()
    assert len(fetch_bulk(spec(archive, tmp_path)).kept) == 3
    assert [one[1] for one in archive.asked] == [f"/{XP}/{LIST}"]
    victim = expand([tmp_path])[1]
    victim.unlink()
    done = fetch_bulk(spec(archive, tmp_path))
    assert ([one.file for one in done.fetched], len(done.kept)) == ([victim.name], 2)
    assert same(spectra(tmp_path), stars())
    with pytest.raises(JobError, match="other settings"):
        fetch_bulk(spec(archive, tmp_path, correlations=True))


def test_a_file_that_the_archive_replaced_is_fetched_again(archive, tmp_path: Path) -> None:
    fetch_bulk(spec(archive, tmp_path))
    first, second, _ = paths(archive)
    archive.files[first] = archive.files[second]  # other content, the same name
    archive.publish(XP)
    assert len(plan_bulk(spec(archive, tmp_path)).missing) == 1


@pytest.mark.parametrize(
    ("pixels", "files"), [("0", 1), ("0-786431", 3), ("6224,0", 2), ("9336-786431", 0)]
)
def test_pixels_choose_files(archive, tmp_path: Path, pixels: str, files: int) -> None:
    assert len(plan_bulk(spec(archive, tmp_path, healpix=pixels)).missing) == files


@pytest.mark.parametrize("pixels", ["786432", "5-3", "x", "0,,1", "-1"])
def test_what_is_no_pixel_is_refused(archive, tmp_path: Path, pixels: str) -> None:
    with pytest.raises(JobError, match="HEALPix"):
        plan_bulk(spec(archive, tmp_path, healpix=pixels))


def test_broken_transfers_resume_where_they_broke(archive, tmp_path: Path) -> None:
    for path in paths(archive):
        archive.faults[path] = [Fault(break_after=5000), Fault(break_after=3000), Fault(status=503)]
    done = fetch_bulk(spec(archive, tmp_path))
    assert done.exit_code == 0
    assert same(spectra(tmp_path), stars())
    for path in paths(archive):
        ranges = [(asked, status) for _, _, asked, status in archive.gets(path)]
        assert ranges == [
            (None, 200), ("bytes=5000-", 206), ("bytes=8000-", 503), ("bytes=8000-", 206)
        ]  # fmt: skip
    listed = len(archive.files[f"/{XP}/{LIST}"])
    # Each byte came once (and two bytes of each refusal).
    assert archive.sent == sum(len(archive.files[path]) for path in paths(archive)) + listed + 6


def test_the_next_call_resumes_what_this_one_gave_up(archive, tmp_path: Path) -> None:
    path = paths(archive)[0]
    archive.faults[path] = [Fault(break_after=5000)] + [Fault(status=500)] * 2
    failed = fetch_bulk(spec(archive, tmp_path))
    assert (failed.exit_code, len(failed.failed), len(failed.fetched)) == (1, 1, 2)
    assert "500" in next(iter(failed.failed.values()))
    archive.asked.clear()
    assert fetch_bulk(spec(archive, tmp_path)).exit_code == 0
    assert archive.gets(path)[0][2:] == ("bytes=5000-", 206)
    assert same(spectra(tmp_path), stars())


@pytest.mark.parametrize("fault", [Fault(ranges=False), Fault(conditions=False)])
def test_a_file_that_changes_midway_is_fetched_anew(archive, tmp_path: Path, fault: Fault) -> None:
    path = paths(archive)[0]
    new = zipped(stars_csv())
    archive.faults[path] = [Fault(break_after=5000), fault]

    def change() -> None:
        while not archive.gets(path):
            time.sleep(0.001)
        archive.files[path] = new
        archive.publish(XP)

    changing = threading.Thread(target=change)
    changing.start()
    patient = replace(spec(archive, tmp_path, healpix="0"), retries=replace(QUICK, pause=0.2))
    done = fetch_bulk(patient)
    changing.join()
    assert done.exit_code == 0, done.lines()
    assert done.fetched[0].bytes == len(new)
    assert agrees(pq.read_table(tmp_path / done.fetched[0].file), plain_csv(raw()), COLUMNS)


def raw() -> Path:
    return ARCHIVE / "XP_CONTINUOUS_RAW.csv"


def stars_csv() -> bytes:
    return raw().read_bytes()


def test_retry_after_is_respected(archive, tmp_path: Path) -> None:
    path = paths(archive)[0]
    archive.faults[path] = [Fault(status=503, headers={"Retry-After": "1"})]
    start = time.monotonic()
    patient = replace(QUICK, longest_pause=5.0)
    done = fetch_bulk(replace(spec(archive, tmp_path, healpix="0"), retries=patient))
    assert done.exit_code == 0
    assert time.monotonic() - start >= 1.0


def test_a_silent_server_counts_as_broken(archive, tmp_path: Path) -> None:
    path = paths(archive)[0]
    archive.faults[path] = [Fault(pause=0.5)]
    impatient = replace(QUICK, silence=0.1)
    done = fetch_bulk(replace(spec(archive, tmp_path, healpix="0"), retries=impatient))
    assert done.exit_code == 0
    assert len(archive.gets(path)) == 2


def test_a_slow_server_is_not_broken(archive, tmp_path: Path) -> None:
    path = paths(archive)[0]
    archive.faults[path] = [Fault(pause=0.02)]
    assert fetch_bulk(spec(archive, tmp_path, healpix="0")).exit_code == 0
    assert len(archive.gets(path)) == 1


def test_a_wrong_sum_fails_its_file_alone(archive, tmp_path: Path) -> None:
    damaged, missing, good = paths(archive)
    archive.files[damaged] = archive.files[damaged][:-9] + b"123456789"  # the list stays
    del archive.files[missing]
    done = fetch_bulk(spec(archive, tmp_path))
    assert [tmp_path / one.file for one in done.fetched] == expand([tmp_path])
    assert [one.url for one in done.fetched] == [archive.url + good]
    assert "MD5" in done.failed[damaged.rsplit("/", 1)[1]]
    assert "404" in done.failed[missing.rsplit("/", 1)[1]]
    assert len(archive.gets(damaged)) == 2
    assert not list((tmp_path / "_partial").glob("*.gz"))


def test_correlations_on_request(tmp_path: Path) -> None:
    archive = LocalArchive()
    archive.put(XP, "XpContinuousMeanSpectrum_000000-003111.csv.gz", zipped(stars_csv()))
    archive.publish(XP)
    with serving(archive):
        fetch_bulk(spec(archive, tmp_path, correlations=True))
    (file,) = expand([tmp_path])
    assert agrees(pq.read_table(file), plain_csv(raw()), (*COLUMNS, *CORRELATIONS))


def test_a_row_that_cannot_be_read_is_kept_and_counted(archive, tmp_path: Path) -> None:
    path = paths(archive)[0]
    lines = gzip.decompress(archive.files[path]).split(b"\n")
    head, rest = lines[6].split(b'"', 1)
    lines[6] = head + b'"[broken' + rest[7:]
    archive.files[path] = zipped(b"\n".join(lines))
    archive.publish(XP)
    done = fetch_bulk(spec(archive, tmp_path, healpix="0"))
    (receipt,) = done.fetched
    assert (receipt.rows_read, receipt.rows_written, receipt.rows_rejected) == (20, 19, 1)
    rejected = pq.read_table(tmp_path / "_rejected" / receipt.file).to_pylist()
    star = stars().column("source_id")[1].as_py()  # four lines of comments and one of names
    assert [(row["source_id"], row["reason"], row["row"]) for row in rejected] == [
        (star, "unreadable", 1)
    ]
    assert done.exit_code == 0


def test_gaia_source_has_the_columns_of_the_contract_and_the_stars_with_spectra(
    archive, tmp_path: Path
) -> None:
    done = fetch_bulk(spec(archive, tmp_path, table="gaia_source"))
    assert not done.failed
    assert {(one.rows_read, one.rows_left_out) for one in done.fetched} == {(40, 20)}
    ids = stars().column("source_id")
    rows = open_auxiliary(expand([tmp_path]), tmp_path / "stage").match(ids)
    assert rows.column("phot_g_mean_mag").to_pylist() == [14.5] * 60
    wanted = [None if star % 7 == 0 else star % 97 / 10 for star in ids.to_pylist()]
    assert rows.column("parallax").to_pylist() == wanted
    every = fetch_bulk(spec(archive, tmp_path / "all", table="gaia_source", all_sources=True))
    assert every.rows == 120
    assert paths(archive, SOURCE)


@pytest.mark.parametrize("table", ["xp_continuous", "gaia_source"])
def test_listed_stars_from_the_files(tmp_path: Path, table: str) -> None:
    every = stars().column("source_id").to_pylist()
    pixels = sorted({star >> 43 for star in every})
    archive = small_archive(parts=1)
    for folder in (XP, SOURCE):
        (name,) = paths(archive, folder)
        near = name.replace("000000-003111", f"000000-{pixels[-1]:06d}")
        archive.files[near] = archive.files.pop(name)
        archive.files[name.replace("000000-003111", f"{pixels[-1] + 1:06d}-786431")] = b"far away"
        archive.publish(folder)
    wanted = [every[40], every[7], every[8], 12345]
    with serving(archive):
        done = fetch_bulk(spec(archive, tmp_path, table=table, stars=np.array(wanted)))
        assert (done.exit_code, len(done.fetched), done.rows) == (0, 1, 3)
        found = pq.read_table(expand([tmp_path])[0])
        assert found.column("source_id").to_pylist() == sorted(wanted[:3])
        left_out = done.fetched[0].rows_left_out
        assert left_out == done.fetched[0].rows_read - 3
        with pytest.raises(JobError, match="other settings"):
            fetch_bulk(spec(archive, tmp_path, table=table, stars=np.array(wanted[:2])))


def test_the_command_for_listed_stars_from_the_files(archive, tmp_path: Path) -> None:
    pixel = stars().column("source_id").to_numpy()[5] >> 43
    for name in [Path(path).name for path in paths(archive)[1:]]:
        del archive.files[f"/{XP}/{name}"]
    (first,) = paths(archive)
    archive.files[first.replace("003111", f"{pixel:06d}")] = archive.files.pop(first)
    archive.publish(XP)
    star = stars().column("source_id")[5].as_py()
    listed = tmp_path / "list.csv"
    listed.write_text(f"source_id,note\n{star},x\n")
    words = ("--ids", str(listed), "--from-files", "--base-url", archive.url)
    assert command("fetch", *words, "--output", str(tmp_path / "out")) == 0
    assert spectra(tmp_path / "out").column("source_id").to_pylist() == [star]


def test_politeness(tmp_path: Path) -> None:
    archive = small_archive(parts=6)
    for path in paths(archive):
        archive.faults[path] = [Fault(pause=0.02)]
    with serving(archive):
        fetch_bulk(spec(archive, tmp_path, parallel=2))
    assert archive.most_at_once == 2


def test_downloads_wait_while_the_folder_is_full(archive, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(disk_budget, "LOOK_AGAIN", 0.02)
    sizes = [len(archive.files[path]) for path in paths(archive)]
    said: list[str] = []
    over = threading.Event()

    def move_away() -> None:
        while not over.wait(0.05):
            if any(line.startswith("paused") for line in said):
                for file in tmp_path.glob("*.parquet"):
                    file.unlink(missing_ok=True)

    user = threading.Thread(target=move_away, daemon=True)
    user.start()
    # One file fits, and not a second one beside the first one's Parquet file.
    done = fetch_bulk(
        spec(archive, tmp_path, disk_budget=round(1.21 * max(sizes))), announce=said.append
    )
    over.set()
    user.join()
    assert (done.exit_code, len(done.fetched)) == (0, 3)
    assert any(line.startswith("paused") for line in said)
    assert archive.most_at_once == 1


def test_a_server_that_is_gone_ends_the_call(tmp_path: Path) -> None:
    archive = small_archive(parts=12)
    listing = archive.files[f"/{XP}/{LIST}"]
    archive.files.clear()
    archive.files[f"/{XP}/{LIST}"] = listing
    with serving(archive):
        done = fetch_bulk(spec(archive, tmp_path, parallel=1))
    assert (len(done.failed), done.left, done.exit_code) == (8, 4, 1)
    with pytest.raises(DownloadError):
        fetch_bulk(spec(archive, tmp_path))


def test_only_one_process_fetches_into_a_folder(archive, tmp_path: Path) -> None:
    with Lock(tmp_path / "_fetch.lock"), pytest.raises(LockedError):
        fetch_bulk(spec(archive, tmp_path))
    assert not archive.asked


@pytest.mark.parametrize("status", [405, 501])
def test_a_mirror_without_head(archive, tmp_path: Path, status: int) -> None:
    archive.head_status = status
    assert fetch_bulk(spec(archive, tmp_path)).exit_code == 0


def test_a_list_that_comes_compressed(archive, tmp_path: Path) -> None:
    archive.compressing = True
    assert len(plan_bulk(spec(archive, tmp_path)).missing) == 3


def test_a_release_without_addresses_says_which_lines_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"\[archive.tables.xp_continuous\]"):
        plan_bulk(BulkSpec(tmp_path, load_release("dr4")))


def test_what_is_no_list_is_said(archive, tmp_path: Path) -> None:
    archive.files[f"/{XP}/{LIST}"] = b"<html>Welcome</html>"
    with pytest.raises(DownloadError, match="no list of MD5 sums"):
        plan_bulk(spec(archive, tmp_path))


def command(*words: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["catalogproc", *words])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)


def test_the_command(archive, tmp_path: Path, capsys) -> None:
    for table in ("xp_continuous", "gaia_source"):
        words = ("--base-url", archive.url, "--table", table, "--output", str(tmp_path / table))
        assert command("fetch", *words, "--dry-run", "--json") == 0
        assert len(json.loads(capsys.readouterr().out)["missing"]) == 3
        assert command("fetch", *words) == 0
        assert "3 files fetched" in capsys.readouterr().out
    assert command("fetch", "--disk-budget", "much", "--output", str(tmp_path / "x")) == 2


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_call_that_was_ended_is_resumed(archive, tmp_path: Path, how: signal.Signals) -> None:
    first, second, third = paths(archive)
    archive.faults[second] = [Fault(pause=0.8)]
    archive.faults[third] = [Fault(pause=0.8)]
    words = ["-m", "catalogproc", "fetch", "--base-url", archive.url, "--output", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, *words], stderr=subprocess.PIPE, cwd=ROOT, text=True,
        # A shell lets commands in its background ignore SIGINT, and tests may be one.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    receipt = tmp_path / "_receipts" / f"{Path(first).name.removesuffix('.csv.gz')}.json"
    end = time.monotonic() + 60
    while not receipt.exists() and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (-how if how == signal.SIGKILL else 130), said
    assert [path.name for path in tmp_path.glob("*.parquet")] == [f"{receipt.stem}.parquet"]
    archive.asked.clear()
    done = fetch_bulk(spec(archive, tmp_path))
    assert (len(done.kept), len(done.fetched)) == (1, 2)
    assert same(spectra(tmp_path), stars())
    assert not list((tmp_path / "_partial").iterdir())
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_full_disk_ends_the_call_and_the_next_one_resumes(
    archive, tmp_path: Path, monkeypatch
) -> None:
    def full(file, block: bytes, path: Path) -> None:
        raise write_error(OSError(errno.ENOSPC, "No space left on device"), path)

    with monkeypatch.context() as patch:
        patch.setattr(http, "_write", full)
        with pytest.raises(DiskFullError):
            fetch_bulk(spec(archive, tmp_path))
    assert fetch_bulk(spec(archive, tmp_path)).exit_code == 0
    assert same(spectra(tmp_path), stars())


@pytest.mark.slow
def test_a_simulated_whole_sky_needs_no_more_memory_or_files_at_its_end(tmp_path: Path) -> None:
    archive = small_archive(parts=1, rows=2)
    (name,) = paths(archive)
    content = archive.files.pop(name)
    for number in range(3386):
        span = f"{number * 232:06d}-{number * 232 + 231:06d}"
        archive.put(XP, f"XpContinuousMeanSpectrum_{span}.csv.gz", content)
    archive.publish(XP)
    process, seen = psutil.Process(), []

    def watch(done: int, total: int | None, words: str) -> None:
        seen.append((process.memory_info().rss, process.num_fds()))

    with serving(archive):
        done = fetch_bulk(spec(archive, tmp_path), watch)
    assert (done.exit_code, len(done.fetched), done.rows) == (0, 3386, 6772)
    early, late = seen[len(seen) // 10 : len(seen) // 5], seen[-len(seen) // 10 :]
    middle = [np.median([one[what] for one in part]) for part in (early, late) for what in (0, 1)]
    # The server in this process keeps a line for each of 6,772 requests.
    assert middle[2] - middle[0] < 40e6
    assert middle[3] - middle[1] < 10


@pytest.mark.slow
def test_from_nothing_to_a_verified_catalog(archive, tmp_path: Path) -> None:
    for path in paths(archive):
        archive.faults[path] = [Fault(break_after=4000), Fault(status=503)]
    for table in ("xp_continuous", "gaia_source"):
        given = ("--base-url", archive.url, "--table", table, "--output", str(tmp_path / table))
        assert command("fetch", *given) == 0
    given = ("--input", str(tmp_path / "xp_continuous"), "--output", str(tmp_path / "run"))
    source = ("--gaia-source", str(tmp_path / "gaia_source"), "--workers", "1")
    assert command("run", *given, *source, "--job", "demo") == 0
    assert command("verify", str(tmp_path / "run")) == 0
    rows = pq.read_table(tmp_path / "run" / "catalog", columns=["source_id"])
    assert rows.sort_by("source_id").column("source_id").to_pylist() == (
        stars().column("source_id").to_pylist()
    )
