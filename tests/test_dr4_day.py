"""The day of Gaia DR4: the commands of README, on a made-up release, from check to catalog."""

from __future__ import annotations

import glob
import io
import re
import shlex
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from support.bundles import tiny_bundle
from support.next_release import NextRelease, write_next_release
from support.paths import ROOT

from catalogproc.cli.main import main
from catalogproc.cluster.plan import make_plan
from catalogproc.cluster.spec import RunSpec
from catalogproc.evaluation.catalog_diff import compare_catalogs
from catalogproc.export.open_catalog import open_catalog
from catalogproc.flags import load_flags, load_input_flags
from catalogproc.inference.engine import Engine
from catalogproc.inference.process_chunk import process_chunk
from catalogproc.readers.gaia_source import open_auxiliary
from catalogproc.release import load_release
from catalogproc.rundir.manifest import open_run
from catalogproc.rundir.summary import read_summary, write_summary
from catalogproc.vocabulary import load_vocabulary

# Two clusters are started, which takes long on a machine that is busy.
pytestmark = pytest.mark.timeout(900)

STARS, FRESH, PAIRS = 60, 5, 500
JOB = """\
kind = "run"
description = "by derivatives, which a small model takes"
propagation = "first_order"
labels = ["teff", "logg", "m_h", "mass", "log_age"]
inputs = ["bprp", "jh", "jk", "logebv"]
"""


@dataclass
class Day:
    """What the commands left, and printed."""

    folder: Path
    made: NextRelease
    said: dict[str, str] = field(default_factory=dict)

    def catalog(self, name: str) -> dict[str, np.ndarray]:
        table = open_catalog(self.folder / name).to_arrow()
        return {column: table[column].to_numpy() for column in table.column_names}


def commands() -> list[str]:
    """The lines of README's section."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Gaia DR4 on the day")[1].split("\n## ")[0]
    block = re.findall(r"```\n(.*?)```", section, re.DOTALL)[0].replace("\\\n", " ")
    return [line.partition("#")[0].strip() for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    folder = tmp_path_factory.mktemp("day")
    done = Day(folder, write_next_release(folder, STARS, FRESH, PAIRS))
    (folder / "day.toml").write_text(JOB)
    tiny_bundle(folder / "MODEL", load_vocabulary(basis="canonical"))
    with pytest.MonkeyPatch().context() as patch:
        patch.chdir(folder)
        for line in commands():
            # Spectra of DR3 are no matter of this test, and workers take seconds to start.
            done.said[line] = here(line) if "--output dr3" in line else typed(line, patch)
    return done


def here(line: str) -> str:
    """Do a run in this process, without a cluster."""
    words = [x for word in shlex.split(line) for x in (sorted(glob.glob(word)) or [word])]
    tables = words[words.index("--gaia-source") + 1 : words.index("--output")]
    plan = make_plan(RunSpec("dr3_xp.parquet", "dr3", tables, "MODEL", "day.toml"))
    open_run(plan.output, plan.identity)
    joined = open_auxiliary([Path(table) for table in tables], Path("staging"))
    (chunk,) = plan.chunks
    process_chunk(Engine(plan.bundle, plan.job), chunk, joined, plan.output)
    write_summary(plan.output)
    return ""


def typed(line: str, patch: pytest.MonkeyPatch) -> str:
    """What a command prints, as a shell starts it; it must succeed."""
    words = [x for word in shlex.split(line) for x in (sorted(glob.glob(word)) or [word])]
    if words[1] in ("run", "check"):
        words += ["--workers", "1", "--device", "cpu", "--job", "day.toml"]
    patch.setattr("sys.argv", words)
    with redirect_stdout(io.StringIO()) as said, pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0, line
    return said.getvalue()


def test_each_command_says_what_a_user_must_know(day: Day) -> None:
    said = {tuple(line.split()[1:3]): text for line, text in day.said.items()}
    assert "[design] file, sha256" in said["describe", "dr4_facts.toml"]
    assert "basis_function_id " not in said["describe", "dr4_facts.toml"].split("not known")[1]
    assert f"{PAIRS} stars of both releases" in said["bridge", "fit"]
    assert f"{STARS - FRESH} stars of both releases" in said["bridge", "check"]
    check = said["check", "--bridge"]
    for words in (
        "ready to run", "not read: EPOCH_SPECTRUM_XP-Gaia DR4-DATAMODEL_GAIA.csv",
        "phot_bp_mean_mag (as phot_bp_mag)", "in no table, not in Gaia DR4: phot_bp_rp_excess_",
        "BPRP_EXCESS (phot_bp_rp_excess_factor)", f"{STARS} of the first {STARS} stars found",
    ):  # fmt: skip
        assert words in check, words
    for line, text in day.said.items():
        if " run " in line and "dr4_xp" in line:
            assert f"{STARS} stars written, 0 rejected" in text
            assert "tentative_parallax_bias (used) less Lindegren" in text


def test_the_catalogs_of_both_ways_are_of_the_same_stars(day: Day) -> None:
    exact, bridged, old = (day.catalog(name) for name in ("dr4_exact", "dr4", "dr3"))
    assert sorted(exact["source_id"]) == sorted(bridged["source_id"]) == sorted(day.made.stars)
    assert len(old["source_id"]) == PAIRS + STARS - FRESH
    order = [np.argsort(one["source_id"]) for one in (exact, bridged)]
    for label in ("teff", "logg", "m_h"):
        first, second = (
            one[label][rows] for one, rows in zip((exact, bridged), order, strict=True)
        )
        error = exact[f"e_{label}_input"][order[0]]
        assert np.nanmedian(np.abs(first - second) / error) < 1.0, label
    bit = load_input_flags()["BRIDGED"].value
    assert (bridged["input_flags"] & bit > 0).all()
    assert not (exact["input_flags"] & bit).any()
    # Parallaxes come by the bits of astrometric_params, and less the bias of the release.
    assert np.isfinite(exact["parallax_zpc"]).sum() == STARS - STARS // 10
    blended, multiple = (load_flags()[name].value for name in ("XP_BLEND", "NSS_OR_VAR"))
    assert [(exact["quality_flags"] & bit > 0).sum() for bit in (blended, multiple)] == [1, 1]


def test_every_product_names_the_release_and_how_it_was_read(day: Day) -> None:
    design, bridge = (load_release(day.folder / name) for name in ("dr4.toml", "bridge.toml"))
    for name, release in (("dr4_exact", design), ("dr4", bridge)):
        identity = open_catalog(day.folder / name).identity
        assert identity.data_release == release
        summary = read_summary(day.folder / name) or {}
        assert (summary["rows_read"], summary["rows_written"]) == (STARS, STARS)
        assert summary["rows_matched"] == STARS
        page = (day.folder / name / "report.html").read_text()
        assert f"Gaia DR4, epoch J2017.5, {release.hash}" in page
        assert ("bridge" in page) == (name == "dr4")
    header = fits.getheader(day.folder / "dr4.fits", 1)
    assert header["RELEASE"] == "dr4"
    assert bridge.bridge is not None
    assert header["BRIDGE"] == bridge.bridge.sha256
    table = fits.getdata(day.folder / "dr4.fits", 1)
    assert sorted(table["source_id"]) == sorted(day.made.stars)


def test_the_comparison_counts_both_sides_and_follows_changed_identifiers(day: Day) -> None:
    text = (day.folder / "diff" / "diff.md").read_text()
    both = STARS - FRESH
    assert f"in both {both}; in dr3 alone {PAIRS}; in dr4 alone {FRESH}" in text
    assert "dr4: 60 stars, Gaia DR4, by a bridge" in text
    changed = day.made.stars != np.where(day.made.before > 0, day.made.before, day.made.stars)
    assert changed.sum() > both // 4
    found = compare_catalogs(
        day.folder / "dr3", day.folder / "dr4_exact", day.folder / "dr3_neighbourhood.parquet"
    )
    assert found.in_both == both
    # Other stars would differ by many errors; these have 0.7 of the noise, drawn anew.
    values = [one.z_input for one in found.differences if one.z_input == one.z_input]
    assert values
    assert 0.3 < np.median(values) < 3.0, values
