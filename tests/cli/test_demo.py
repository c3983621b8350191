"""What a new user runs first: a catalog of real giants, beside APOGEE, with pictures."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from catalogproc import open_catalog

pytestmark = pytest.mark.timeout(900)
"""Programs that are started, also where others use the machine."""

PICTURES = ("kiel", "clump_and_branch", "age_metallicity", "predicted_against_apogee", "sky")


def catalogproc(*words: object) -> str:
    command = [sys.executable, "-m", "catalogproc", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("demo") / "out"
    return folder, catalogproc("demo", "--output", folder)


def test_the_demo_says_what_the_rows_are_good_for_and_where_things_are(
    made: tuple[Path, str],
) -> None:
    folder, text = made
    stars = open_catalog(folder).to_pandas(["good_params", "good_mass_age", "in_training"])
    assert len(stars) == 2_000
    for name in ("good_params", "good_mass_age"):
        good = int(stars[name].sum())
        assert good > 1_500
        assert f"{good:,} of 2,000 stars" in text
    assert not stars.in_training.any()
    assert "the model was trained on none of these stars" in text
    for path in ("catalog", "report.html", "pictures"):
        assert str(folder / path) in text
        assert (folder / path).exists()


def test_the_predictions_agree_with_apogee_as_well_as_the_evaluation_says(
    made: tuple[Path, str],
) -> None:
    found = dict(re.findall(r"^  (\S+|log g|log age) \[\S+\]\s+[\d,]+\s+([\d.]+)", made[1], re.M))
    limits = {"Teff": 45, "log g": 0.18, "[M/H]": 0.11, "[alpha/M]": 0.036, "mass": 0.11,
              "log age": 0.13}  # fmt: skip
    assert set(found) == set(limits)
    for name, limit in limits.items():
        assert 0.5 * limit < float(found[name]) < limit, name


def test_the_report_and_the_pictures_show_the_comparison(made: tuple[Path, str]) -> None:
    page = (made[0] / "report.html").read_text()
    assert "Predicted against APOGEE DR17" in page
    for part in ("kiel", "evolution", "age-metallicity", "known-teff", "known-mass", "sky"):
        assert f'id="{part}"' in page, part
    for name in PICTURES:
        content = (made[0] / "pictures" / f"{name}.png").read_bytes()
        assert content.startswith(b"\x89PNG")
        assert 10_000 < len(content) < 300_000, name


def test_the_speed_is_the_same_on_the_screen_in_the_summary_and_in_the_report(
    made: tuple[Path, str],
) -> None:
    folder, text = made
    summary = json.loads((folder / "summary.json").read_text())
    assert f"2,000 stars in {summary['seconds']:,.1f} s" in text
    assert f"({summary['stars_per_second']:,.0f} per second)" in text
    tile = f"<b>{summary['stars_per_second']:.0f}</b><span>stars per second"
    assert tile in (folder / "report.html").read_text()


def test_again_it_does_nothing_and_says_the_same(made: tuple[Path, str]) -> None:
    folder, text = made
    before = {path: path.stat().st_mtime_ns for path in (folder / "catalog").iterdir()}
    found = json.loads(catalogproc("demo", "--output", folder, "--json"))
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "catalog").iterdir()}
    assert found["chunks_run"] == 0
    assert all(row["scatter"] in text for row in found["known_labels"])
