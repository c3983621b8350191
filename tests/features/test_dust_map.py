"""The staged dust map against mwdust itself; the reddening of stars against a plain loop."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support import real_stars
from support.dust_maps import directions, mwdust_map, write_combine19

from catalogproc.errors import CatalogprocError, InputError, Refusal
from catalogproc.features import combined19, dust_map, extinction
from catalogproc.features.dust_map import DustMap
from catalogproc.features.tokens import tokens
from catalogproc.io.processes import host_name
from catalogproc.job import Job
from catalogproc.vocabulary import load_vocabulary


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mwdust's own folder, with the map in it."""
    folder = tmp_path_factory.mktemp("mwdust")
    write_combine19(folder / "combined19" / "combine19.h5")
    return folder


@pytest.fixture(scope="module")
def staged(home: Path, tmp_path_factory: pytest.TempPathFactory) -> DustMap:
    return combined19.stage(tmp_path_factory.mktemp("maps"), home / "combined19" / "combine19.h5")


@pytest.fixture(scope="module")
def theirs(home: Path):  # type: ignore[no-untyped-def]
    return mwdust_map(home)


def test_it_finds_the_pixels_that_mwdust_finds(staged: DustMap, theirs) -> None:  # type: ignore[no-untyped-def]
    """Fine before coarse where both are there, and none where there is none."""
    l, b = directions(20_000)  # noqa: E741
    row, their_row = staged.rows(l, b), theirs._lbIndx(l, b)
    assert ((row < 0) == (their_row < 0)).all()
    assert 0 < (row < 0).mean() < 0.05
    found = row >= 0
    assert (staged.curves[row[found]] == theirs._best_fit[their_row[found]]).all()


def test_on_its_grid_it_answers_as_mwdust_does(staged: DustMap, theirs) -> None:  # type: ignore[no-untyped-def]
    l, b = directions(3000)  # noqa: E741
    modulus = np.random.default_rng(3).uniform(4.0, 18.875, len(l))
    modulus[:240] = np.repeat(4.0 + 0.125 * np.arange(120), 2)  # the knots themselves
    d = 10 ** (modulus / 5 - 2)
    ours = staged.ebv(l, b, d)
    assert ours == pytest.approx(theirs(l, b, d), rel=1e-12, abs=1e-14, nan_ok=True)
    assert np.isfinite(ours).mean() > 0.95


def test_the_true_scale_is_mwdusts_true_scale(staged: DustMap, home: Path) -> None:
    """Without a filter mwdust answers on the SFD scale; "E(B-V)" is the true one."""
    true = mwdust_map(home, filter="E(B-V)")
    l, b = directions(500)  # noqa: E741
    d = np.full(500, 2.0)
    wanted = true(l, b, d)
    assert staged.true_ebv(l, b, d) == pytest.approx(wanted, rel=1e-3, abs=1e-9, nan_ok=True)
    ratio = staged.true_ebv(l, b, d) / np.where(staged.ebv(l, b, d) > 0, staged.ebv(l, b, d), 1)
    assert np.nanmax(ratio) == pytest.approx(0.884)


def test_where_mwdust_goes_wrong_it_does_not(staged: DustMap, theirs) -> None:  # type: ignore[no-untyped-def]
    l, b = directions(300)  # noqa: E741
    here = staged.rows(l, b) >= 0
    for near in (0.001, 0.010, 0.05):
        assert (theirs(l, b, np.full(300, near))[here] < 0).any()  # below zero: no such dust
        ours = staged.ebv(l, b, np.full(300, near))
        assert (ours[here] == staged.curves[staged.rows(l, b)[here], 0]).all()
    with np.errstate(invalid="ignore"):
        edge = staged.ebv(l, b, np.full(300, 59.566))
    for far in (60.0, 99.0, 1e9, np.inf):
        assert staged.ebv(l, b, np.full(300, far))[here] == pytest.approx(edge[here], rel=1e-3)
    # Whole numbers as distances: mwdust fails where a line of sight has no map.
    whole = staged.ebv(l, b, np.full(300, 2))
    assert whole == pytest.approx(staged.ebv(l, b, np.full(300, 2.0)), nan_ok=True)


@pytest.mark.parametrize(
    ("l", "b", "d"),
    [
        (np.nan, 0.0, 1.0),
        (10.0, np.nan, 1.0),
        (10.0, 95.0, 1.0),
        (10.0, 0.0, np.nan),
        (10.0, 0.0, -1.0),
        (10.0, 0.0, 0.0),
    ],
)
def test_the_unknown_stays_unknown(staged: DustMap, l: float, b: float, d: float) -> None:  # noqa: E741
    assert np.isnan(staged.ebv([l], [b], [d])).all()
    assert np.isnan(staged.ebv([l, 10.0], [b, 0.0], [[d, d], [1.0, 1.0]])[0]).all()


def test_longitudes_go_round(staged: DustMap) -> None:
    l, b = directions(200)  # noqa: E741
    d = np.full(200, 1.0)
    assert staged.ebv(l - 360.0, b, d) == pytest.approx(staged.ebv(l, b, d), nan_ok=True)


def plain_reddening(theirs, l, b, parallax, sigma, ruwe, draws, random):  # type: ignore[no-untyped-def]  # noqa: E741
    """Leung & Bovy 2024 star by star, with random draws, through mwdust."""
    from astropy.stats import mad_std

    values = []
    for i in range(len(l)):
        d = 1.0 / random.normal(parallax[i], sigma[i], draws)
        if sigma[i] < 0.1 and parallax[i] <= 0 and ruwe[i] < 1.4:
            d[:] = 99.0
        d[d < 0] = np.nan
        if sigma[i] > 0.1 or ruwe[i] > 1.4:
            d[:] = np.nan
        d = np.clip(d, 10 ** (4 / 5 - 2), 10 ** (18.875 / 5 - 2))  # where mwdust goes wrong
        e = theirs(np.full(draws, l[i]), np.full(draws, b[i]), d)
        e[e > 10] = np.nan
        e[e <= 0] = np.exp(-7.0)
        ln = np.log(e)
        if np.isnan(ln).all():
            values.append((np.nan, np.nan))
        else:
            values.append((np.nanmedian(ln), mad_std(ln, ignore_nan=True)))
    return np.array(values).T


def test_the_reddening_of_stars_is_that_of_a_plain_loop_of_random_draws(
    staged: DustMap,
    theirs,  # type: ignore[no-untyped-def]
) -> None:
    random = np.random.default_rng(7)
    count, draws = 40, 4_000
    l, b = directions(count, seed=11)  # noqa: E741
    parallax, sigma = random.uniform(0.02, 3.0, count), random.uniform(0.01, 0.099, count)
    ruwe = np.ones(count)
    parallax[:5] = [-0.3, 0.0, -0.001, 0.03, 0.01]  # a good one that is not positive is far away
    sigma[5:8], ruwe[8:11] = 0.15, 1.6  # no good ones
    usable = (sigma <= 0.1) & (ruwe <= 1.4)
    given = np.where(usable, parallax, np.nan)
    value, error = dust_map.ln_ebv_by_parallax(staged, l, b, given, sigma)
    wanted, wanted_error = plain_reddening(theirs, l, b, parallax, sigma, ruwe, draws, random)
    assert (np.isnan(value) == np.isnan(wanted)).all()
    assert 6 <= np.isnan(value).sum() < 15
    known = np.isfinite(wanted)
    # The median of 4,000 random draws is uncertain by 2 % of the error. Where a line of sight
    # has steps, little more can be said than that both stand on the same one.
    slack = 0.1 * wanted_error[known] + 5e-4
    assert (np.abs(value - wanted)[known] < slack).all()
    assert error[known] == pytest.approx(wanted_error[known], rel=0.2, abs=5e-4)
    assert (value[known] >= extinction.LN_EBV_FLOOR).all()


def test_no_dust_and_too_much_of_it(staged: DustMap) -> None:
    """Without dust e^-7; more than 10 mag is no measurement."""
    rows = {kind: [] for kind in ("none", "much")}
    l, b = directions(40_000)  # noqa: E741
    row = staged.rows(l, b)
    rows["none"] = np.flatnonzero((staged.curves[np.maximum(row, 0), -1] == 0) & (row >= 0))
    rows["much"] = np.flatnonzero((staged.curves[np.maximum(row, 0), 0] > 10) & (row >= 0))
    for kind, found in rows.items():
        at = found[:1]
        assert len(at), kind
        value, error = dust_map.ln_ebv_by_parallax(staged, l[at], b[at], [1.0], [0.05])
        wanted = -7.0 if kind == "none" else np.nan
        assert value[0] == pytest.approx(wanted, nan_ok=True)
        assert error[0] == pytest.approx(0.0 if kind == "none" else np.nan, nan_ok=True)


def test_a_stars_reddening_does_not_depend_on_its_neighbours(staged: DustMap) -> None:
    l, b = directions(1500)  # noqa: E741
    parallax = np.random.default_rng(1).normal(0.8, 0.5, 1500)
    sigma = np.full(1500, 0.08)
    together = dust_map.ln_ebv_by_parallax(staged, l, b, parallax, sigma)
    order = np.random.default_rng(2).permutation(1500)
    turned = dust_map.ln_ebv_by_parallax(staged, l[order], b[order], parallax[order], sigma[order])
    alone = [dust_map.ln_ebv_by_parallax(staged, [x], [y], [p], [0.08]) for x, y, p in
             zip(l[:50], b[:50], parallax[:50], strict=True)]  # fmt: skip
    for k in range(2):
        assert (together[k][order].view(np.int64) == turned[k].view(np.int64)).all()
        one = np.array([pair[k][0] for pair in alone])
        assert (together[k][:50].view(np.int64) == one.view(np.int64)).all()


def test_e_bv_becomes_a_token_where_none_is_given(staged: DustMap) -> None:
    """Real bright stars; their error and solution, which that file lacks, as is usual for such.
    One brings its own E(B-V), another's parallax is too uncertain."""
    spectra, auxiliary = real_stars.bright(), real_stars.bright_auxiliary()
    for name, value in (("nu_eff_used_in_astrometry", 1.5), ("astrometric_params_solved", 31)):
        auxiliary = auxiliary.append_column(name, pa.array([value] * len(auxiliary)))
    error = pa.array([0.02] * (len(auxiliary) - 1) + [0.4])
    auxiliary = auxiliary.append_column("parallax_error", error)
    vocabulary, job = load_vocabulary(), Job("dusty", inputs=("bprp", "logebv"))
    own = pa.array([0.3] + [None] * (len(auxiliary) - 1), pa.float32())
    auxiliary = auxiliary.append_column("ebv", own)
    plain = tokens(spectra, auxiliary, vocabulary, job)
    dusty = dust_map.reddened(plain, staged, vocabulary, job)
    column = vocabulary.column("logebv")
    assert np.isfinite(plain.values[:, column]).tolist() == [True] + [False] * (len(plain) - 1)
    assert dusty.values[0, column] == pytest.approx(np.log(0.3))
    rows = np.flatnonzero(plain.parallax_usable)[1:]
    assert 20 < len(rows) < len(plain) - 1
    ln, error = dust_map.ln_ebv_by_parallax(
        staged, plain.l[rows], plain.b[rows], plain.parallax_zpc[rows], plain.e_parallax[rows]
    )
    assert dusty.values[rows, column] == pytest.approx(ln, nan_ok=True)
    assert dusty.errors[rows, column] == pytest.approx(error, nan_ok=True)
    assert np.isfinite(ln).mean() > 0.9
    assert np.isnan(dusty.values[1:, column][~plain.parallax_usable[1:]]).all()
    others = np.delete(np.arange(len(vocabulary)), column)
    assert dusty.values[:, others] == pytest.approx(plain.values[:, others], nan_ok=True)
    unread = replace(job, inputs=("bprp",))
    without = tokens(spectra, auxiliary, vocabulary, unread)
    assert dust_map.reddened(without, staged, vocabulary, unread) is without


@pytest.mark.alone
def test_a_thousand_draws_for_a_thousand_stars_take_seconds(staged: DustMap) -> None:
    l, b = directions(1000)  # noqa: E741
    parallax, sigma = np.full(1000, 0.7), np.full(1000, 0.05)
    start = time.perf_counter()
    value, _ = dust_map.ln_ebv_by_parallax(staged, l, b, parallax, sigma, draws=1000)
    assert time.perf_counter() - start < 3.0
    assert np.isfinite(value).mean() > 0.9


def test_a_map_is_sent_as_a_path_and_shared_as_pages(staged: DustMap) -> None:
    sent = pickle.dumps(staged)
    assert len(sent) < 500
    again = pickle.loads(sent)
    assert again.hash == staged.hash
    assert isinstance(staged.curves, np.memmap)
    assert not staged.curves.flags.writeable


def test_staging_records_where_the_map_comes_from(staged: DustMap, home: Path) -> None:
    facts = json.loads((staged.folder / "map.json").read_text())
    import hashlib

    file = home / "combined19" / "combine19.h5"
    assert facts["source"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert facts["pixels"] == len(staged)
    assert facts["scale"] == "SFD"
    assert facts["nsides"] == [2, 4, 8, 16]
    combined19.verify(staged)
    said = "\n".join(staged.lines())
    assert facts["source"]["sha256"] in said
    assert f"{len(staged):,} pixels" in said
    assert "Green et al. 2019" in said


def test_staging_again_stages_nothing(staged: DustMap, home: Path) -> None:
    before = (staged.folder / "ebv.npy").stat().st_ino
    again = combined19.stage(staged.folder.parent, home / "combined19" / "combine19.h5")
    assert again.hash == staged.hash
    assert combined19.stage(staged.folder.parent).hash == staged.hash
    assert (staged.folder / "ebv.npy").stat().st_ino == before


def test_another_map_is_refused(staged: DustMap, tmp_path: Path) -> None:
    write_combine19(tmp_path / "combine19.h5", seed=99)
    with pytest.raises(Refusal, match=r"another dust map is staged already(.|\n)*--folder"):
        combined19.stage(staged.folder.parent, tmp_path / "combine19.h5")


def test_without_a_map_it_is_said_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"there is no dust map(.|\n)*combine19.h5"):
        dust_map.open_dust_map(tmp_path)


def damaged(kind: str, path: Path) -> None:
    import h5py

    write_combine19(path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:100_000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "a web page":
        path.write_text("<html>404</html>")
    else:
        with h5py.File(path, "r+") as file:
            if kind == "no best_fit":
                del file["best_fit"]
            elif kind == "another grid":
                curves = file["best_fit"][:, :31]
                del file["best_fit"]
                file["best_fit"] = curves
            elif kind == "no HEALPix":
                info = file["pixel_info"][:]
                info["nside"][3] = 7
                file["pixel_info"][...] = info


@pytest.mark.parametrize(
    "kind", ["truncated", "empty", "a web page", "no best_fit", "another grid", "no HEALPix"]
)
def test_half_a_map_is_refused_and_nothing_stays(kind: str, tmp_path: Path) -> None:
    damaged(kind, tmp_path / "combine19.h5")
    with pytest.raises(InputError, match=r"not the map that mwdust distributes(.|\n)*fetch it"):
        combined19.stage(tmp_path / "maps", tmp_path / "combine19.h5")
    assert [path.name for path in (tmp_path / "maps").iterdir()] == [".combined19.lock"]


def test_a_map_that_was_changed_is_found_out(home: Path, tmp_path: Path) -> None:
    ours = combined19.stage(tmp_path, home / "combined19" / "combine19.h5")
    curves = ours.folder / "ebv.npy"
    content = bytearray(curves.read_bytes())
    content[-3] ^= 1
    curves.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        combined19.verify(ours)
    curves.write_bytes(content[:-8])
    os.utime(ours.folder / "map.json", ns=(1, 1))
    with pytest.raises(InputError, match=r"damaged(.|\n)*give catalogproc dust again"):
        dust_map.open_dust_map(tmp_path)


STAGE = """
import sys
from catalogproc.features import combined19
print(combined19.stage(sys.argv[1], sys.argv[2]).hash)
"""


def test_workers_that_stage_at_once_do_not_race(home: Path, tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    # Left by a process that was killed.
    (tmp_path / f".combined19.{ended.pid}@{host_name()}.0123abcd.tmp").mkdir()
    command = [sys.executable, "-c", STAGE, str(tmp_path), str(home / "combined19/combine19.h5")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {process.communicate(timeout=60)[0] for process in running}
    assert len(answers) == 1
    assert all(process.returncode == 0 for process in running)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".combined19.lock", "combined19"]


def test_the_map_in_mwdusts_own_folder_is_taken(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUST_DIR", str(home))
    monkeypatch.setenv("CATALOGPROC_DUST", str(tmp_path / "ours"))
    seen: list[tuple[int, int]] = []
    ours = combined19.stage(progress=lambda done, total: seen.append((done, total)))
    assert ours.folder == tmp_path / "ours" / "combined19"
    assert seen[-1] == (len(ours), len(ours))
    assert dust_map.open_dust_map().hash == ours.hash


def test_what_mwdust_downloads_is_staged(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mwdust's part is played by a copy: there is no network in a test."""
    monkeypatch.setenv("DUST_DIR", str(tmp_path / "nothing here"))
    copy = (
        "import os, shutil, pathlib; to = pathlib.Path(os.environ['DUST_DIR'], 'combined19');"
        f"to.mkdir(); shutil.copy({str(home / 'combined19' / 'combine19.h5')!r}, to)"
    )
    monkeypatch.setattr(combined19, "_DOWNLOAD", copy)
    combined19.verify(combined19.stage(tmp_path / "maps"))
    assert sorted(path.name for path in (tmp_path / "maps").iterdir())[1:] == ["combined19"]


def test_a_download_that_fails_says_what_else_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mwdust's real code, sent to a proxy that nobody serves."""
    monkeypatch.setenv("DUST_DIR", str(tmp_path / "nothing here"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(CatalogprocError, match=r"could not download(.|\n)*--from combine19.h5"):
        combined19.stage(tmp_path / "maps")
    assert [path.name for path in (tmp_path / "maps").iterdir()] == [".combined19.lock"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CatalogprocError, match="the folder of dust maps cannot be written"):
        combined19.stage(tmp_path / "file" / "maps", tmp_path / "file")


def test_the_library_does_not_import_mwdust() -> None:
    """1.5 s, matplotlib, and folders made at import."""
    code = "import sys; import catalogproc.features.combined19; assert 'mwdust' not in sys.modules"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        subprocess.run([sys.executable, "-c", code], check=True)
