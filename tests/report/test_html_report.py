"""Report page: complete, self-contained, escaped, and displayed by a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from base64 import b64decode
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support.catalogs import catalog_table, finished_run, identity, write_chunk
from support.paths import ROOT

from catalogproc.errors import ResumeError
from catalogproc.flags import Flag, load_flags
from catalogproc.network.bundle import load_bundle
from catalogproc.report.histograms import COLUMNS
from catalogproc.report.html_report import write_report
from catalogproc.report.model_card import SCORES_HEADER, card_html, model_scores
from catalogproc.rundir.manifest import open_run
from catalogproc.rundir.summary import write_summary

EVIL = '<script>alert("x")</script>&<img src=https://example.org/x>'
VOID = {"meta", "link", "br", "img", "path", "use", "rect", "image", "circle", "line"}


class Page(HTMLParser):
    """Ids, tags, attributes and texts of a page; fails unless all tags are nested correctly."""

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


def test_every_section_is_present(run: Path, page: Page) -> None:
    assert (run / "report.html").is_file()
    parts = "counts trust training stars kiel age-metallicity mass age sky errors error-teff "
    parts += "error-logg error-m_h error-mass error-age magnitudes flags run throughput stages "
    parts += "rejected failures model provenance use"
    for part in parts.split():
        assert page.ids[part] == 1, part
    assert page.tags["svg"] == 13
    for text in (
        "1,600 stars", "1,612 rows read = 1,600 written + 12 rejected", "no_coefficients",
        "No chunk failed", "model tiny", "FEW_TOKENS",
        f"bit 13: {load_flags()['NOT_GIANT'].description}", "simulated",
        "a.parquet", "good_mass_age", "Leung & Bovy 2024",
    ):  # fmt: skip
        assert text in page.text, text


def test_ids_are_unique_and_every_reference_has_its_target(page: Page) -> None:
    assert {name: n for name, n in page.ids.items() if n > 1} == {}
    targets = [value[1:] for name, value in page.attributes if name.endswith("href")
               and value.startswith("#")]  # fmt: skip
    targets += [
        match for _, value in page.attributes for match in re.findall(r"url\(#(.+?)\)", value)
    ]
    assert len(targets) > 100
    assert {"stars", "trust", "errors", "flags", "run", "model", "provenance", "use"} <= set(
        targets
    )
    assert set(targets) <= set(page.ids)


def test_page_loads_nothing_and_runs_nothing(run: Path, page: Page) -> None:
    assert page.tags["script"] == page.tags["iframe"] == 0
    for name, value in page.attributes:
        assert not name.startswith("on"), name
        if name in ("src", "xlink:href", "action", "data"):
            assert value.startswith(("#", "data:")), value
    policies = [value for name, value in page.attributes if value.startswith("default-src")]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    text = (run / "report.html").read_text()
    assert not re.search(r"@import|url\(\s*['\"]?https?:", text)
    # Links are followed by the reader alone; the others are names of SVG's namespaces.
    links = {value for name, value in page.attributes if name == "href" and ":" in value}
    assert links == {
        "data:,", "https://arxiv.org/abs/2603.03732", "https://doi.org/10.1093/mnras/stad3015",
    }  # fmt: skip
    hosts = set(re.findall(r"https?://([\w.]+)", text))
    assert hosts <= {"www.w3.org", "arxiv.org", "doi.org"}


def test_links_to_files_of_the_run_are_of_files_that_exist(tmp_path: Path) -> None:
    run = finished_run(tmp_path, files=1, chunks=1, rows=20)
    write_summary(tmp_path, [])
    text = write_report(tmp_path).read_text()
    named = re.findall(r'<a href="([\w./]+)">', text)
    assert "catalog/" in named
    assert {"summary.json", "run.json"} <= set(named)
    made_by_a_run = {"provenance.json", "log.jsonl"}
    assert all((tmp_path / name).exists() for name in set(named) - made_by_a_run), (run, named)
    elsewhere = write_report(tmp_path, output=tmp_path.parent / "page.html").read_text()
    assert 'href="catalog/"' not in elsewhere


def test_every_picture_has_a_text_for_those_who_do_not_see_it(page: Page) -> None:
    pictures = page.tags["svg"] + page.tags["img"] + 1  # and the bar of stages
    texts = [value for name, value in page.attributes if name in ("aria-label", "alt")]
    assert len(texts) >= pictures
    assert all(len(text) > 7 for text in texts)
    assert any(text.startswith("log g [dex], ") and "against effective temperature" in text
               for text in texts)  # fmt: skip


def test_untrusted_text_is_escaped(tmp_path: Path) -> None:
    from dataclasses import replace

    run = identity(1, 106)
    run = replace(
        run,
        job={"name": EVIL},
        model={"name": EVIL, "description": EVIL, "training": {EVIL: EVIL}},
        inputs=(replace(run.inputs[0], path=f"in/{EVIL}.parquet"),),
    )
    open_run(tmp_path, run)
    write_chunk(tmp_path, run, 0, run.inputs[0], 0, catalog_table(50), 3)
    write_summary(tmp_path, [{"chunk": EVIL, "file": EVIL, "rows": EVIL, "cause": EVIL}])
    text = write_report(tmp_path, output=tmp_path / "x.html").read_text()
    assert "<script" not in text
    assert "<img src" not in text
    page = Page(text)
    assert page.text.count(EVIL) >= 8
    assert "Not complete." in page.text
    assert "1 chunk failed. 53 input rows without a result." in page.text


def test_runs_without_stars_or_positions_have_a_page(tmp_path: Path) -> None:
    finished_run(tmp_path / "none", files=1, chunks=1, rows=0)
    none = Page(write_report(tmp_path / "none").read_text())
    assert "The catalog holds no stars" in none.text
    finished_run(tmp_path / "lost", files=1, chunks=1, tables=[without_positions(np.arange(60))])
    page = Page(write_report(tmp_path / "lost").read_text())
    assert "this run had no positions" in page.text
    assert page.ids["sky"] == 1
    with pytest.raises(ResumeError, match="holds no run"):
        write_report(tmp_path / "nowhere")


def without_positions(source_id: np.ndarray) -> pa.Table:
    """Stars of these identifiers, of which no position was given."""
    table = catalog_table(len(source_id))
    for name, values in (("_healpix_29", np.full(len(source_id), -1)), ("source_id", source_id)):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), [values])
    return table


def test_without_positions_the_sky_is_that_of_the_source_id(tmp_path: Path) -> None:
    """Real stars with positions: both ways put them into the same pixel."""
    import pyarrow.parquet as pq
    from support.paths import CORRELATED

    from catalogproc.features.astrometry import healpix
    from catalogproc.report.histograms import SKY_ORDER, count_stars

    stars = pq.read_table(CORRELATED / "gaia_source_30.parquet")
    table = without_positions(stars["source_id"].to_numpy())
    found = count_stars(table.select(COLUMNS).to_batches())
    ra, dec = (stars[name].to_numpy().astype(float) for name in ("ra", "dec"))
    wanted = np.bincount(healpix(ra, dec, SKY_ORDER), minlength=12 << 2 * SKY_ORDER)
    assert found.sky_by_id == 30
    assert (found.sky == wanted).all()
    finished_run(tmp_path / "run", files=1, chunks=1, tables=[table])
    page = Page(write_report(tmp_path / "run").read_text())
    assert "30 stars in Galactic coordinates" in page.text
    assert "No position was given for 30 stars" in page.text


def aged_flag() -> Flag:
    """A flag that excludes from good_mass_age alone."""
    flags = load_flags()
    only = flags.good_mass_age & ~flags.good_params
    return next(flag for flag in flags.flags if flag.value & only)


def with_good(rows: int, params: int, mass_age: int) -> pa.Table:
    """A catalog of which the first rows are good; the others have a flag of each sample."""
    table, flags = catalog_table(rows), load_flags()
    number = np.arange(rows)
    value = np.where(number < params, 0, flags["RUWE"].value)
    value = value | np.where(number < mass_age, 0, aged_flag().value)
    for name, column in (
        ("quality_flags", value.astype(np.int32)), ("good_params", number < params),
        ("good_mass_age", number < mass_age),
    ):  # fmt: skip
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), pa.array(column))
    return table


def test_few_good_stars_get_a_banner_and_pictures_say_so(tmp_path: Path) -> None:
    """No picture shows bad stars without a word."""
    finished_run(tmp_path / "few", files=1, chunks=1, tables=[with_good(363, 300, 12)])
    few = Page(write_report(tmp_path / "few").read_text())
    assert few.text.count("Few good stars.") == 1
    assert "12 of 363 stars (3.3 %) are good for masses and ages (good_mass_age)." in few.text
    words = f"{aged_flag().name} removes most: 351 stars, 288 of them alone."
    assert words in few.text
    assert "grey: without good_mass_age; 12 stars have it" in few.text  # in the picture itself
    assert "12 stars with good_mass_age, and in grey 351 without it" in few.text
    assert "grey: without good_params" not in few.text
    assert "stars with good_params, one point per star" in few.text
    finished_run(tmp_path / "none", files=1, chunks=1, tables=[with_good(40, 0, 0)])
    none = Page(write_report(tmp_path / "none").read_text())
    assert none.text.count("Few good stars.") == 2
    assert "grey: without good_params; 0 stars have it" in none.text
    finished_run(tmp_path / "many", files=1, chunks=1, tables=[with_good(400, 390, 380)])
    many = Page(write_report(tmp_path / "many").read_text())
    assert "Few good stars." not in many.text
    assert "in grey" not in many.text


def test_few_good_stars_among_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from catalogproc.report import histograms

    monkeypatch.setattr(histograms, "MAX_POINTS", 100)
    for good in (0, 12):
        folder = tmp_path / str(good)
        finished_run(folder, files=1, chunks=1, tables=[with_good(363, good, good)])
        page = Page(write_report(folder).read_text())
        assert f"grey: without good_params; {good} stars have it" in page.text


def test_stars_unlike_the_training_get_a_banner(tmp_path: Path) -> None:
    table, flags = with_good(300, 300, 300), load_flags()
    place = table.schema.get_field_index("quality_flags")
    box = np.where(np.arange(300) < 60, flags["XP_BOX"].value, 0).astype(np.int32)
    table = table.set_column(place, table.schema.field(place), pa.array(box))
    finished_run(tmp_path / "run", files=1, chunks=1, tables=[table])
    page = Page(write_report(tmp_path / "run").read_text())
    assert "Many stars are unlike the training. XP_BOX 20.0 % (training: 0.5 %)." in page.text


def test_many_stars_are_drawn_as_cells_and_the_page_stays_small(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from catalogproc.report import histograms, html_report

    monkeypatch.setattr(histograms, "MAX_POINTS", 100)
    monkeypatch.setattr(html_report, "MAX_POINTS", 100)
    path = write_report(run, output=tmp_path / "cells.html")
    assert "mean of each cell" in path.read_text()
    assert path.stat().st_size < 1_000_000


def test_the_same_run_gives_the_same_page(run: Path, tmp_path: Path) -> None:
    """Also after an import of GaiaXPy, which changes matplotlib's settings to LaTeX."""
    import matplotlib

    one = write_report(run, output=tmp_path / "1.html")
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30}):
        two = write_report(run, output=tmp_path / "2.html")
    assert one.read_bytes() == two.read_bytes()


def test_card_is_shown_only_for_the_model_of_the_run(tmp_path: Path) -> None:
    from support.bundles import tiny_bundle

    bundle = tiny_bundle(tmp_path / "model")
    (tmp_path / "model" / "CARD.md").write_text("# A card\n\nWhat it is **not** for: `science`.\n")
    known = identity(1, 53)
    run = replace(known, model={"name": "x"}, model_hash=bundle.hash)
    open_run(tmp_path / "run", run)
    write_chunk(tmp_path / "run", run, 0, run.inputs[0], 0, catalog_table(50), 3)
    page = Page(write_report(tmp_path / "run", model=tmp_path / "model").read_text())
    assert "What it is not for: science." in page.text
    # The ranges of the training are known with the model, as numbers and as a picture.
    assert page.ids["ranges"] == 1
    assert "The model of this run was not found" not in page.text
    other = Page(write_report(tmp_path / "run").read_text())
    assert "What it is not for" not in other.text
    assert "The model of this run was not found" in other.text
    assert other.ids["ranges"] == 0
    assert bundle.hash in other.text


CARD = """# One

two
lines with `code <b>` and **bold**

- a
- b & c

| x | y |
|---|---|
| 1 | <i> |

| | |
|---|---|
| k | v |
## Two
"""


def test_markdown_of_cards_becomes_headings_lists_and_tables() -> None:
    page = Page(card_html(CARD))
    wanted = {
        "h3": 1,
        "h4": 1,
        "li": 2,
        "code": 1,
        "strong": 1,
        "table": 2,
        "th": 2,
        "td": 4,
    }
    assert {tag: page.tags[tag] for tag in wanted} == wanted | {"th": 2}
    for text in ("two\nlines with code <b> and bold", "b & c", "<i>"):
        assert text in page.text
    assert [value for name, value in page.attributes if name == "class"] == [
        "wide", "wide", "facts",
    ]  # fmt: skip


def test_what_is_long_in_a_card_is_folded() -> None:
    """Its facts and the sections with tables or pictures; what it may be used for is not."""
    card = (
        "# m\n\nwords\n\n| | |\n|---|---|\n| k | v |\n\n## Use\n\nfor giants\n\n"
        "## Scores\n\n### mass\n\n| x |\n|---|\n| 1 |\n\n## Curve\n\n![loss](curve.png)\n"
    )
    html = card_html(card, folded=True)
    folded = re.findall(r"<details>\s*<summary>(.*?)</summary>(.*?)</details>", html, re.DOTALL)
    assert [title for title, _ in folded] == ["Training data, network and hash", "Scores", "Curve"]
    assert "<td>v</td>" in folded[0][1]
    assert "<h5>mass</h5>" in folded[1][1]
    open_part = re.sub(r"<details>.*?</details>", "", html, flags=re.DOTALL)
    assert "for giants" in open_part
    assert "<details>" not in card_html(card)
    assert "<table" not in open_part


def test_the_scores_of_a_model_are_one_small_table(tmp_path: Path) -> None:
    bundle = load_bundle("giants")
    rows = {row[0]: row for row in model_scores(bundle)}
    known = json.loads((bundle.path / "scores.json").read_text())["b"]
    assert len(rows) == 6 <= len(known)
    teff = next(score for score in known if score["label"] == "teff")
    assert rows["Teff [K]"][1:3] == (f"{teff['stars']:,}", f"{teff['scatter']:.0f}")
    assert len(rows["Teff [K]"]) == len(SCORES_HEADER)
    # A model without them, or with others, has no table.
    broken = replace(bundle, path=tmp_path)
    assert model_scores(broken) == model_scores(None) == []
    for text in ("[]", '{"b": 1}', '{"b": [1]}', '{"b": [{"label": "teff"}]}', "[" * 100_000):
        (tmp_path / "scores.json").write_text(text)
        assert model_scores(broken) == []


def test_markdown_of_cards_cannot_reach_out_of_the_page() -> None:
    """HTML is shown as text; links and images, in every notation, leave no address behind."""
    hostile = (
        f"{EVIL}\n\n<div onclick=run()>\n\n[text](https://example.org/a) <https://example.org/b>"
        "\n\n![picture](https://example.org/c) [ref][d] [js](javascript:alert(1))\n\n"
        '| a |\n|---|\n| [t](https://example.org/e "t\\" onload=\\"x") |\n\n'
        "```js onload=x\nalert()\n```\n\n[d]: https://example.org/d\n"
    )
    page = Page(card_html(hostile))
    for tag in ("script", "a", "img", "iframe", "link", "style"):
        assert page.tags[tag] == 0, tag
    for name, value in page.attributes:
        assert name in ("class", "style"), name
        assert "example.org" not in value
    assert EVIL in page.text
    assert "Figure (not shown): picture" in page.text
    for text in ("text", "ref", "<div onclick=run()>"):
        assert text in page.text


def test_a_picture_of_a_card_is_embedded_if_it_is_a_picture_of_the_bundle(tmp_path: Path) -> None:
    image = b"\x89PNG\r\n\x1a\n" + bytes(100)
    (tmp_path / "curve.png").write_bytes(image)
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path.parent / "outside.png").write_bytes(image)
    (tmp_path / "link.png").symlink_to(tmp_path / "curve.png")
    text = "".join(
        f"![{name} <b>]({address})\n\n"
        for name, address in (
            ("good", "curve.png"), ("bad", "text.png"), ("out", "../outside.png"),
            ("link", "link.png"), ("none", "none.png"), ("web", "https://example.org/x.png"),
        )
    )  # fmt: skip
    page = Page(card_html(text, tmp_path))
    assert page.tags["img"] == 1
    assert ("alt", "good <b>") in page.attributes
    address = next(value for name, value in page.attributes if name == "src")
    assert b64decode(address.removeprefix("data:image/png;base64,")) == image
    assert page.text.count("Figure (not shown)") == 5


BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed (apt-get install chromium)")
@pytest.mark.parametrize(("name", "width"), [("desk", 1280), ("phone", 390)])
def test_a_browser_displays_the_page(
    run: Path, page: Page, tmp_path: Path, name: str, width: int
) -> None:
    """Leaves output/report-desk.png and output/report-phone.png for inspection."""
    from matplotlib.image import imread

    # Chromium's window cannot be as narrow as a phone, a frame can.
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
    # Nothing is wider than the page: its right margin is empty from top to bottom.
    margin = image[:, width - 8 : width - 1]
    assert np.allclose(margin, paper, atol=0.02)
