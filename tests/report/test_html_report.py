"""The page of a run: everything in it, nothing from outside, and in a real browser a picture."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from support.catalogs import catalog_table, finished_run, identity, write_chunk
from support.paths import ROOT

from catalogproc.errors import ResumeError
from catalogproc.report import markdown
from catalogproc.report.html_report import write_report
from catalogproc.rundir.manifest import claim
from catalogproc.rundir.provenance import write_summary

EVIL = '<script>alert("x")</script>&<img src=https://example.org/x>'
VOID = {"meta", "link", "br", "img", "path", "use", "rect", "image", "circle", "line"}


class Page(HTMLParser):
    """What a page holds: its ids, tags, attributes and texts; it must be well nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids.update(value for name, value in attrs if name == "id" and value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    finished_run(folder, files=2, chunks=2, rows=400, rejected=3)
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page(write_report(run).read_text())


def test_every_part_is_there(run: Path, page: Page) -> None:
    assert (run / "report.html").is_file()
    parts = "counts stars kiel age-metallicity mass age sky errors error-teff error-logg error-m_h "
    parts += "error-mass error-age magnitudes flags run throughput stages rejected failures model "
    parts += "provenance use"
    for part in parts.split():
        assert page.ids[part] == 1, part
    assert page.tags["svg"] == 13
    for words in (
        "1,600 stars", "1,612 rows read = 1,600 written + 12 rejected", "no_coefficients",
        "No chunk failed", "model tiny", "FEW_TOKENS", "bit 13: logg >= 3.5", "simulated",
        "a.parquet", "good_mass_age", "Leung & Bovy 2024",
    ):  # fmt: skip
        assert words in page.text, words


def test_ids_are_unique_and_every_reference_meets_one(page: Page) -> None:
    assert {name: n for name, n in page.ids.items() if n > 1} == {}
    targets = [value[1:] for name, value in page.attributes if name.endswith("href")
               and value.startswith("#")]  # fmt: skip
    targets += [
        match for _, value in page.attributes for match in re.findall(r"url\(#(.+?)\)", value)
    ]
    assert len(targets) > 100
    assert set(targets) <= set(page.ids)


def test_nothing_is_fetched_and_nothing_runs(run: Path, page: Page) -> None:
    assert page.tags["script"] == page.tags["iframe"] == 0
    for name, value in page.attributes:
        assert not name.startswith("on"), name
        if name in ("src", "href", "xlink:href", "action", "data"):
            assert value.startswith(("#", "data:")), value
    policies = [value for name, value in page.attributes if value.startswith("default-src")]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    text = (run / "report.html").read_text()
    assert not re.search(r"@import|url\(\s*['\"]?https?:", text)
    hosts = set(re.findall(r"https?://([\w.]+)", text))
    assert hosts <= {"www.w3.org"}  # names of SVG's namespaces


def test_every_text_from_outside_is_escaped(tmp_path: Path) -> None:
    from dataclasses import replace

    run = identity(1, 106)
    run = replace(
        run,
        job={"name": EVIL},
        model={"name": EVIL, "description": EVIL, "training": {EVIL: EVIL}},
        inputs=(replace(run.inputs[0], path=f"in/{EVIL}.parquet"),),
    )
    claim(tmp_path, run)
    write_chunk(tmp_path, run, 0, run.inputs[0], 0, catalog_table(50), 3)
    write_summary(tmp_path, [{"chunk": EVIL, "file": EVIL, "rows": EVIL, "cause": EVIL}])
    text = write_report(tmp_path, output=tmp_path / "x.html").read_text()
    assert "<script" not in text
    assert "<img src" not in text
    page = Page(text)
    assert page.text.count(EVIL) >= 8
    assert "Not complete." in page.text
    assert "1 chunks failed; 53 rows of the input have no answer yet" in page.text


def test_a_run_without_stars_or_positions_has_its_page_too(tmp_path: Path) -> None:
    finished_run(tmp_path / "none", files=1, chunks=1, rows=0)
    none = Page(write_report(tmp_path / "none").read_text())
    assert "There is none" in none.text
    table = catalog_table(60)
    place = table.schema.get_field_index("_healpix_29")
    lost = table.set_column(place, table.schema.field(place), [np.full(60, -1)])
    finished_run(tmp_path / "lost", files=1, chunks=1, tables=[lost])
    page = Page(write_report(tmp_path / "lost").read_text())
    assert "this run had no positions" in page.text
    assert page.ids["sky"] == 1
    with pytest.raises(ResumeError, match="holds no run"):
        write_report(tmp_path / "nowhere")


def test_many_stars_are_drawn_as_cells_and_the_page_stays_small(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from catalogproc.report import histograms, html_report

    monkeypatch.setattr(histograms, "FEW", 100)
    monkeypatch.setattr(html_report, "FEW", 100)
    path = write_report(run, output=tmp_path / "cells.html")
    assert "the mean of a cell" in path.read_text()
    assert path.stat().st_size < 1_000_000


def test_the_same_run_gives_the_same_page(run: Path, tmp_path: Path) -> None:
    """Also where GaiaXPy was imported before, which has matplotlib ask for LaTeX."""
    import matplotlib

    one = write_report(run, output=tmp_path / "1.html")
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30}):
        two = write_report(run, output=tmp_path / "2.html")
    assert one.read_bytes() == two.read_bytes()


def test_the_card_of_the_runs_own_model_is_shown(tmp_path: Path) -> None:
    from support.bundles import tiny_bundle

    from catalogproc.rundir.manifest import RunIdentity

    bundle = tiny_bundle(tmp_path / "model")
    (tmp_path / "model" / "CARD.md").write_text("# A card\n\nWhat it is **not** for: `science`.\n")
    known = identity(1, 53)
    run = RunIdentity(known.job, known.job_hash, {"name": "x"}, bundle.hash, known.inputs)
    claim(tmp_path / "run", run)
    write_chunk(tmp_path / "run", run, 0, run.inputs[0], 0, catalog_table(50), 3)
    page = Page(write_report(tmp_path / "run", model=tmp_path / "model").read_text())
    assert "What it is not for: science." in page.text
    other = Page(write_report(tmp_path / "run").read_text())
    assert "What it is not for" not in other.text
    assert bundle.hash in other.text


def test_markdown_of_cards() -> None:
    found = markdown.html(
        "# One\n\ntwo\nlines with `code <b>` and **bold**\n\n- a\n- b & c\n\n"
        "| x | y |\n|---|---|\n| 1 | <i> |\n\n| | |\n|---|---|\n| k | v |\n## Two"
    )
    assert found.split("\n") == [
        "<h3>One</h3>",
        "<p>two lines with <code>code &lt;b&gt;</code> and <strong>bold</strong></p>",
        "<ul><li>a</li><li>b &amp; c</li></ul>",
        '<div class="wide"><table><tr><th>x</th><th>y</th></tr>'
        "<tr><td>1</td><td>&lt;i&gt;</td></tr></table></div>",
        '<div class="wide"><table class="facts"><tr><td>k</td><td>v</td></tr></table></div>',
        "<h4>Two</h4>",
    ]


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed (apt-get install chromium)")
@pytest.mark.parametrize(("name", "width"), [("desk", 1280), ("phone", 390)])
def test_a_browser_shows_it(run: Path, page: Page, tmp_path: Path, name: str, width: int) -> None:
    """Leaves output/report-desk.png and output/report-phone.png to be looked at."""
    from matplotlib.image import imread

    # A window cannot be as narrow as a phone, a frame can.
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<body style="margin:0"><iframe src="{(run / "report.html").as_uri()}" width="{width}" '
        'height="3000" style="border:0"></iframe>'
    )
    shot = ROOT / "output" / f"report-{name}.png"
    shot.parent.mkdir(exist_ok=True)
    shot.unlink(missing_ok=True)
    done = subprocess.run(
        [
            str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={max(width, 500)},3000", f"--screenshot={shot}", frame.as_uri(),
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert shot.is_file(), done.stderr
    image = imread(shot)[:, :width, :3]
    assert image.shape[0] == 3000
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 200  # pictures, not a blank page
    paper = image[5, 5]
    # Nothing runs out of the page to its right: its margin is empty from top to end.
    margin = image[:, width - 8 : width - 1]
    assert np.allclose(margin, paper, atol=0.02)
