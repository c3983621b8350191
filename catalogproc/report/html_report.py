"""The report of a run: one HTML file that needs nothing else, on a desk and on a phone.

Everything in it follows from the output folder (and the model's card, where the model is at
hand). Every text that comes from outside is escaped, and the page forbids itself to load or
to run anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from catalogproc.contract import load_flags
from catalogproc.errors import BundleError
from catalogproc.export.reader import Progress, open_rows
from catalogproc.io.atomic import write_whole
from catalogproc.report import assets, figures, markdown
from catalogproc.report.histograms import COLUMNS, ERRORS, FEW, Tally, tally
from catalogproc.report.pace import pace
from catalogproc.report.provenance_diagram import picture
from catalogproc.rundir.manifest import RunIdentity, read_identity
from catalogproc.rundir.provenance import REFERENCES, read_summary, summarise, versions
from catalogproc.rundir.receipts import Receipt, iterate_receipts

REPORT_FILE = "report.html"
SHOWN = 50
"""How many failures, files or reasons are listed."""
_STAGES = ("#56B4E9", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#999999", "#F0E442")


def write_report(
    folder: Path,
    *,
    model: str | Path | None = None,
    output: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the page of a run; its path.

    Parameters
    ----------
    folder
        The output folder of a run, finished or not.
    model
        Where the run's model is: a folder or a shipped name. Without it, or if it is another
        model than the run's, the page shows what run.json says of it in place of its card.
    output
        The file; report.html in the folder by default.
    progress
        Called with (stars read, stars in all, "").

    Raises
    ------
    ResumeError
        The folder holds no run.
    VerifyError
        A part that a receipt names is missing, or cannot be read.
    CatalogprocError
        The page cannot be written.
    """
    folder = Path(folder)
    identity = read_identity(folder)
    receipts = list(iterate_receipts(folder))
    stars = tally(open_rows(folder, COLUMNS, progress=progress).stream())
    summary = summarise(identity, receipts)
    failures = (read_summary(folder) or {}).get("failures", [])
    body = "\n".join(
        [
            _head(identity, summary),
            _status(identity, summary, failures),
            _tiles(stars, summary, failures),
            _stars(stars),
            _errors(stars),
            _flags(stars),
            _run(identity, receipts, summary, failures),
            _model(identity, model),
            _provenance(identity, receipts),
            _use(folder),
        ]
    )
    name = f"run {identity.run_id} of catalogproc"
    generator = f"catalogproc {versions()['catalogproc']}"
    path = folder / REPORT_FILE if output is None else Path(output)
    write_whole(path, assets.page(name, body, generator).encode())
    return path


def _head(identity: RunIdentity, summary: Mapping[str, Any]) -> str:
    job, model = (escape(str(held.get("name", ""))) for held in (identity.job, identity.model))
    moments = (summary[name][:16].replace("T", " ") for name in ("started", "finished"))
    span = f"{' to '.join(moments)} UTC"
    return (
        f"<header><small>catalogproc, run {escape(identity.run_id)}</small>"
        f"<h1>Masses, ages and atmospheres of {summary['rows_written']:,} stars</h1>"
        f'<p class="soft">job <strong>{job}</strong>, model <strong>{model}</strong> '
        f"({escape(identity.model_id)}), {escape(span)}</p></header>"
    )


def _status(
    identity: RunIdentity, summary: Mapping[str, Any], failures: Sequence[Mapping[str, Any]]
) -> str:
    counts = [file.rows for file in identity.inputs if file.rows is not None]
    known = len(counts) == len(identity.inputs)
    missing = max(sum(counts) - summary["rows_read"], 0) if known else 0
    equation = (
        f"{summary['rows_read']:,} rows read = {summary['rows_written']:,} written + "
        f"{summary['rows_rejected']:,} rejected"
    )
    if failures or missing:
        words = [f"{len(failures):,} chunks failed"] if failures else []
        words += [f"{missing:,} rows of the input have no answer yet"] if missing else []
        return (
            f'<div class="status bad"><strong>Not complete.</strong> {escape("; ".join(words))}. '
            f"The same command again does what is missing. {escape(equation)}.</div>"
        )
    return f'<div class="status"><strong>Complete.</strong> {escape(equation)}.</div>'


def _tiles(stars: Tally, summary: Mapping[str, Any], failures: Sequence[Mapping[str, Any]]) -> str:
    tiles = [
        (f"{stars.stars:,}", "stars in the catalog"),
        (f"{summary['rows_rejected']:,}", "rejected, each with its reason"),
        (_share(stars.good_params, stars.stars), f"good_params: {stars.good_params:,} stars"),
        (_share(stars.good_mass_age, stars.stars), f"good_mass_age: {stars.good_mass_age:,} stars"),
        (f"{summary['stars_per_second']:,.0f}", "stars a second"),
        (f"{summary['chunks']:,}", f"chunks done, {len(failures):,} failed"),
    ]
    text = "".join(f'<div class="tile"><b>{escape(a)}</b><span>{escape(b)}</span></div>'
                   for a, b in tiles)  # fmt: skip
    return f'<section class="tiles" id="counts">{text}</section>'


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "none"


def _figure(identifier: str, title: str, drawing: str, caption: str) -> str:
    return (
        f'<figure id="{identifier}"><h3>{escape(title)}</h3>{drawing}'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _stars(stars: Tally) -> str:
    if not stars.stars:
        return '<section id="stars"><h2>The stars</h2><p>There is none.</p></section>'
    good = "stars with good_params" if stars.good_params >= figures.ENOUGH else "all stars"
    settled = "stars with good_mass_age" if stars.good_mass_age >= figures.ENOUGH else "all stars"
    each = "a point a star" if stars.stars <= FEW else "the mean of a cell"
    drawn = [
        _figure("kiel", "Kiel diagram", figures.kiel(stars),
                f"Surface gravity over effective temperature, {good}, {each}; colour is [M/H]."),
        _figure("age-metallicity", "Age and metallicity", figures.age_metallicity(stars),
                f"Metallicity over age, {settled}."),
        _figure("mass", "Masses", figures.masses(stars),
                "Present masses: of all stars, and of those whose mass and age may be used."),
        _figure("age", "Ages", figures.ages(stars),
                "Ages: of all stars, and of those whose mass and age may be used."),
    ]  # fmt: skip
    if stars.placed:
        drawn.append(
            _figure("sky", "On the sky", figures.sky(stars),
                    f"{stars.placed:,} stars in galactic coordinates, the centre amid, "
                    "longitude rising to the left; equal areas.")
        )  # fmt: skip
    note = "" if stars.placed else (
        '<p class="soft" id="sky">No map of the sky: this run had no positions '
        "(<code>--gaia-source</code>).</p>"
    )  # fmt: skip
    return (
        f'<section id="stars"><h2>The stars</h2><div class="figures">{"".join(drawn)}</div>'
        f"{note}</section>"
    )


def _errors(stars: Tally) -> str:
    if not stars.stars:
        return ""
    drawn = [
        _figure(f"error-{name.removeprefix('e_')}", f"Error of {title}", figures.error(stars, name),
                "Median, and the middle two thirds of the stars.")
        for name, (title, _) in ERRORS.items()
    ]  # fmt: skip
    drawn.append(_figure("magnitudes", "Magnitudes", figures.magnitudes(stars), "Stars over G."))
    return (
        '<section id="errors"><h2>The errors, over magnitude</h2>'
        "<p>1 sigma as the model states it, of all stars.</p>"
        f'<div class="figures three">{"".join(drawn)}</div></section>'
    )


def _flags(stars: Tally) -> str:
    flags = load_flags()
    seen = sorted((f for f in flags.flags if stars.flags[f.name]), key=lambda f: f.bit)
    bars = []
    for flag in seen:
        count = stars.flags[flag.name]
        bars.append(
            f'<div class="bar"><code>{escape(flag.name)}</code>'
            f'<span class="track"><i style="width:{100 * count / stars.stars:.2f}%"></i></span>'
            f'<span class="count">{count:,}</span>'
            f"<p>bit {flag.bit}: {escape(flag.description)}{_keeps_out(flag.value)}</p></div>"
        )
    clear = ", ".join(escape(flag.name) for flag in flags.flags if not stars.flags[flag.name])
    shown = f'<div class="bars">{"".join(bars)}</div>' if bars else "<p>No bit is set.</p>"
    return (
        f'<section id="flags"><h2>The flags</h2><p>How many stars have each bit of '
        f"<code>quality_flags</code>. A set bit warns.</p>{shown}"
        f'<p class="soft">Set for no star: {clear or "none"}.</p></section>'
    )


def _keeps_out(value: int) -> str:
    flags = load_flags()
    if value & flags.good_params:
        return "; keeps out of good_params and good_mass_age"
    return "; keeps out of good_mass_age" if value & flags.good_mass_age else ""


def _run(
    identity: RunIdentity,
    receipts: Sequence[Receipt],
    summary: Mapping[str, Any],
    failures: Sequence[Mapping[str, Any]],
) -> str:
    speed = pace(receipts)
    drawn = _figure(
        "throughput", "Throughput", figures.throughput(speed.seconds, speed.rate, speed.breaks),
        "Stars a second while chunks were worked on, all workers together"
        + ("; dashed: the run was stopped, and went on later." if speed.breaks else "."),
    )  # fmt: skip
    facts = [
        ("input files", f"{len(identity.inputs):,}"),
        ("devices", ", ".join(summary["devices"])),
        ("workers", f"{len({(r.host, r.worker) for r in receipts}):,}"),
        ("seconds at work", f"{summary['seconds']:,.1f}"),
        ("job", f"{identity.job.get('name', '')} {identity.job_hash}"),
        ("run", identity.hash),
        ("versions", ", ".join(f"{n} {v}" for n, v in sorted(summary["versions"].items()))),
    ]
    return (
        f'<section id="run"><h2>The run</h2><div class="figures">{drawn}'
        f'<figure id="stages"><h3>Where the time went</h3>{_stack(summary["stage_seconds"])}'
        "<figcaption>Seconds by stage, summed over workers.</figcaption></figure></div>"
        f"{_table((), facts)}{_rejected(summary)}{_failures(failures)}</section>"
    )


def _stack(seconds: Mapping[str, float]) -> str:
    total = sum(seconds.values()) or 1.0
    parts = [
        (name, spent, _STAGES[place % len(_STAGES)])
        for place, (name, spent) in enumerate(sorted(seconds.items(), key=lambda item: -item[1]))
    ]
    bars = "".join(f'<i style="width:{100 * spent / total:.2f}%;background:{colour}"></i>'
                   for _, spent, colour in parts)  # fmt: skip
    words = "".join(
        f'<li><i style="background:{colour}"></i>{escape(name)} {spent:,.1f} s, '
        f"{100 * spent / total:.0f} %</li>"
        for name, spent, colour in parts
    )
    return f'<div class="stack">{bars}</div><ul class="legend">{words}</ul>'


def _rejected(summary: Mapping[str, Any]) -> str:
    reasons = sorted(summary["rejected_by_reason"].items(), key=lambda item: -item[1])
    if not reasons:
        return '<p id="rejected">No row was rejected.</p>'
    rows = [(name, f"{count:,}") for name, count in reasons]
    return f'<h3 id="rejected">Rejected rows</h3>{_table(("reason", "rows"), rows)}'


def _failures(failures: Sequence[Mapping[str, Any]]) -> str:
    if not failures:
        return '<p id="failures">No chunk failed.</p>'
    rows = [
        (str(f.get("file", "")), str(f.get("rows", "")), str(f.get("cause", "")))
        for f in failures[:SHOWN]
    ]
    more = f"<p>and {len(failures) - SHOWN:,} more</p>" if len(failures) > SHOWN else ""
    return (
        f'<h3 id="failures">Chunks that failed</h3>{_table(("file", "rows", "cause"), rows)}{more}'
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; without a header, of names and what they are."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    lines = [f"<tr>{head}</tr>"] if head else []
    lines += [
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    ]
    kind = "" if head else ' class="facts"'
    return f'<div class="wide"><table{kind}>{"".join(lines)}</table></div>'


def _model(identity: RunIdentity, model: str | Path | None) -> str:
    card = _card(identity, model)
    if card:
        text = markdown.html(card)
    else:
        training = identity.model.get("training", {})
        facts = [("hash", identity.model_hash)]
        facts += [(name, value) for name, value in dict(training).items()]
        told = escape(str(identity.model.get("description", "")))
        text = f"<h3>{escape(str(identity.model.get('name', '')))}</h3><p>{told}</p>"
        text += _table((), facts)
    return f'<section id="model"><h2>The model</h2>{text}</section>'


def _card(identity: RunIdentity, model: str | Path | None) -> str:
    """The card of the run's model where that is at hand, else nothing."""
    from catalogproc.network.bundle import load_bundle

    for place in (model, identity.model.get("name"), "default"):
        try:
            bundle = load_bundle(place) if place else None
        except BundleError:
            continue
        if bundle is not None and bundle.hash == identity.model_hash:
            return _text(bundle.path)
    return ""


def _text(bundle: Path) -> str:
    """What a bundle's card says; nothing where it is no text of the bundle's own folder."""
    from catalogproc.network.bundle import inside

    try:
        card = inside(bundle, "CARD.md")
        return card.read_text(encoding="utf-8") if card is not None else ""
    except (BundleError, OSError, UnicodeDecodeError):
        return ""


def _provenance(identity: RunIdentity, receipts: Sequence[Receipt]) -> str:
    files = [(file.path, file.fingerprint[:16], "" if file.rows is None else f"{file.rows:,}")
             for file in (*identity.inputs, *identity.companions)[:SHOWN]]  # fmt: skip
    more = len(identity.inputs) + len(identity.companions) - len(files)
    left = f"<p>and {more:,} more in run.json</p>" if more else ""
    return (
        '<section id="provenance"><h2>Where it comes from</h2>'
        f'<figure><div class="picture" style="width:100%">{picture(identity, receipts)}</div>'
        "</figure><details><summary>Input files</summary>"
        f"{_table(('file', 'fingerprint', 'rows'), files)}{left}</details></section>"
    )


def _use(folder: Path) -> str:
    name = escape(folder.resolve().name)
    return (
        '<section id="use"><h2>To use it</h2><pre>'
        f"catalogproc verify {name}\n"
        f"catalogproc export {name} --format fits --output giants.fits "
        "--where good_mass_age\n\n"
        "import catalogproc\n"
        f'stars = catalogproc.open_catalog("{name}").to_pandas(where="good_params")</pre>'
        "<p>Use rows with <code>good_params</code> for atmospheres and with "
        "<code>good_mass_age</code> for masses and ages. Cite the method "
        f"({escape(REFERENCES)}), Gaia (ESA/Gaia/DPAC), and the hashes of model and run.</p>"
        "</section>"
    )
