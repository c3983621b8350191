"""Report of a run: one HTML file that needs no other file and no network.

All of it follows from the run folder, and from the model card where the model is found.
Jinja escapes every text of the run, and the page's policy forbids it to load or to run
anything. The layout is in ``report.html.jinja``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogproc.export.reader import Progress, open_rows
from catalogproc.flags import Flag, load_flags, load_input_flags
from catalogproc.io.atomic import write_atomic
from catalogproc.readers.auxiliary_account import account_lines, zero_point_lines
from catalogproc.release import Release
from catalogproc.report import figures
from catalogproc.report.histograms import (
    COLUMNS,
    MAX_POINTS,
    UNCERTAINTIES,
    Histograms,
    count_stars,
    measure_throughput,
)
from catalogproc.report.known_labels import HEADER, KnownLabels, known_labels
from catalogproc.report.model_card import SCORES_HEADER, model_card, model_scores
from catalogproc.report.page import POLICY, Figure, counted, environment
from catalogproc.report.provenance_diagram import provenance_diagram
from catalogproc.report.run_model import find_bundle
from catalogproc.report.trust import MIN_GOOD_STARS, domain_flags, ranges, samples, unlike
from catalogproc.rundir.manifest import RunIdentity, read_identity
from catalogproc.rundir.receipts import Receipt, iterate_receipts
from catalogproc.rundir.summary import REFERENCE_LINKS, read_summary, summarise, versions

if TYPE_CHECKING:
    from catalogproc.network.bundle import Bundle

REPORT_FILE = "report.html"
BESIDE = ("catalog/", "rejected/", "summary.json", "provenance.json", "run.json", "log.jsonl")
"""Files of a run folder that its page links to."""
SHOWN = 50
"""How many failures and input files are listed."""
_STAGE_COLOURS = ("#56B4E9", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#999999",
                  "#F0E442")  # fmt: skip


def write_report(
    folder: Path,
    *,
    model: str | Path | None = None,
    output: Path | None = None,
    labels: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the report page of a run and return its path.

    Parameters
    ----------
    folder
        The run folder, finished or not.
    model
        Folder or shipped name of the run's model, for its card. Without it, or if it is
        another model than the run's, the page shows what run.json says about the model.
    output
        The file; report.html in the run folder by default.
    labels
        Table of known labels of stars of the catalog, which are compared with the predicted ones
        (:func:`catalogproc.report.known_labels.known_labels`).
    progress
        Called with (stars read, all stars, "").

    Raises
    ------
    ResumeError
        The folder holds no run.
    VerifyError
        A part that a receipt names is missing or cannot be read.
    JobError
        The known labels do not fit the catalog.
    CatalogprocError
        The page cannot be written.
    """
    folder = Path(folder)
    identity = read_identity(folder)
    receipts = list(iterate_receipts(folder))
    stars = count_stars(open_rows(folder, COLUMNS, progress=progress).stream())
    summary = summarise(identity, receipts)
    bundle = find_bundle(identity, model)
    path = folder / REPORT_FILE if output is None else Path(output)
    page = environment(excludes=_excludes).get_template("report.html.jinja").render(
        **_run_values(identity, receipts, summary),
        **_star_values(stars),
        **_trust_values(stars, bundle),
        **_known_values(known_labels(folder, labels) if labels is not None else None),
        failures=_failures(folder),
        card=model_card(bundle),
        scores=model_scores(bundle),
        scores_header=SCORES_HEADER,
        diagram=provenance_diagram(identity, receipts),
        folder_name=folder.resolve().name,
        generator=f"catalogproc {versions()['catalogproc']}",
        policy=POLICY,
        references=list(REFERENCE_LINKS.items()),
        shown=SHOWN,
        beside=BESIDE if path.resolve().parent == folder.resolve() else (),
    )  # fmt: skip
    write_atomic(path, page.encode())
    return path


def _excludes(flag: Flag) -> str:
    """Return the samples that a star with this flag is excluded from."""
    flags = load_flags()
    if flag.value & flags.good_params:
        return "good_params and good_mass_age"
    return "good_mass_age" if flag.value & flags.good_mass_age else ""


def _run_values(
    identity: RunIdentity, receipts: Sequence[Receipt], summary: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the template says about the run itself."""
    counts = [file.rows for file in identity.inputs if file.rows is not None]
    all_known = len(counts) == len(identity.inputs)
    reasons = sorted(summary["rejected_by_reason"].items(), key=lambda item: -item[1])
    training, release = dict(identity.model.get("training", {})), identity.data_release
    return {
        "identity": identity,
        "summary": summary,
        "rows_missing": max(sum(counts) - summary["rows_read"], 0) if all_known else 0,
        "throughput_figure": _throughput_figure(receipts),
        "auxiliary": [
            *account_lines(summary["auxiliary"], summary["rows_written"]),
            *zero_point_lines(summary["zero_point_difference"]),
        ],
        "stages": _stages(summary["stage_seconds"]),
        "run_facts": [
            ("input files", f"{len(identity.inputs):,}"),
            ("devices", ", ".join(summary["devices"])),
            ("workers", f"{len({(r.host, r.worker) for r in receipts}):,}"),
            ("wall time [s]", f"{summary['seconds']:,.1f}"),
            ("job", f"{identity.job.get('name', '')} {identity.job_hash}"),
            ("run", identity.hash),
            ("release", f"{release.title}, epoch {release.epoch}, {release.hash}"),
            *_bridge_facts(release),
            ("versions", ", ".join(f"{n} {v}" for n, v in sorted(summary["versions"].items()))),
        ],
        "rejected": [(reason, f"{count:,}") for reason, count in reasons],
        "model_facts": [("hash", identity.model_hash), *training.items()],
        "files": [
            (file.path, file.fingerprint[:16], "" if file.rows is None else f"{file.rows:,}")
            for file in (*identity.inputs, *identity.auxiliary)
        ],
    }


def _failures(folder: Path) -> list[tuple[str, ...]]:
    """Return file, rows, cause and advice of each failed chunk of the last start."""
    failures = (read_summary(folder) or {}).get("failures", [])
    return [
        tuple(str(item.get(name, "")) for name in ("file", "rows", "cause", "advice"))
        for item in failures
    ]


def _throughput_figure(receipts: Sequence[Receipt]) -> Figure:
    measured = measure_throughput(receipts)
    caption = "Stars per second while chunks were processed, all workers together"
    if measured.breaks:
        caption += "; dashed: the run was interrupted and resumed later"
    return ("throughput", "Throughput", figures.throughput(measured).svg(), f"{caption}.")


def _bridge_facts(release: Release) -> list[tuple[str, str]]:
    """Return the row of the bridge that the spectra were read by, if there was one."""
    bridge = release.bridge
    if bridge is None:
        return []
    words = f"{bridge.sha256}, {bridge.pairs:,} pairs, squared residuals {bridge.residuals:.2f}"
    return [("bridge", words)]


def _stages(seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the stages, the longest first, with their percentage and colour."""
    total = sum(seconds.values()) or 1.0
    longest_first = sorted(seconds.items(), key=lambda item: -item[1])
    return [
        {
            "name": name,
            "seconds": spent,
            "percent": 100 * spent / total,
            "colour": _STAGE_COLOURS[number % len(_STAGE_COLOURS)],
        }
        for number, (name, spent) in enumerate(longest_first)
    ]


def _star_values(stars: Histograms) -> dict[str, Any]:
    """Return what the template says about the stars."""
    flags, facts = load_flags().flags, load_input_flags().flags
    return {
        "stars": stars,
        "star_figures": list(_star_figures(stars)) if stars.stars else [],
        "error_figures": list(_error_figures(stars)) if stars.stars else [],
        "flags_set": [(flag, stars.flags[flag.name]) for flag in flags if stars.flags[flag.name]],
        "facts_set": [(f, stars.input_flags[f.name]) for f in facts if stars.input_flags[f.name]],
        "flags_clear": [flag.name for flag in flags if not stars.flags[flag.name]],
    }


def _trust_values(stars: Histograms, bundle: Bundle | None) -> dict[str, Any]:
    """Return what the template says about how far the run can be trusted."""
    if not stars.stars:
        return dict.fromkeys(
            ("samples", "few", "unlike", "ranges", "domain_flags", "ranges_figure")
        )
    rows, found = ranges(stars, bundle), samples(stars)
    caption = (
        "Stars of this run in the range of the training stars (blue): median, central 68 % and "
        "98 %. What lies beyond was not trained."
    )
    figure = ("ranges", "Range of the training", figures.training_ranges(rows).svg(), caption)
    return {
        "samples": found,
        "few": [one for one in found if one.few],
        "unlike": unlike(stars),
        "ranges": [row.cells() for row in rows],
        "domain_flags": domain_flags(stars),
        "ranges_figure": figure if bundle is not None else None,
    }


def _known_values(found: KnownLabels | None) -> dict[str, Any]:
    """Return what the template says about known labels of the stars."""
    figures = found.figures() if found is not None else []
    return {"known": found, "known_figures": figures, "known_header": HEADER}


def _star_figures(stars: Histograms) -> Iterator[Figure]:
    drawn_as = "one point per star" if stars.stars <= MAX_POINTS else "mean of each cell"
    both = "all stars, and stars with good_mass_age"
    yield ("kiel", "Kiel diagram", figures.kiel(stars).svg(),
           f"Surface gravity against effective temperature, {_sample(stars, 'good_params')}, "
           f"{drawn_as}; colour: [M/H].")  # fmt: skip
    if stars.with_rc_prob:
        yield ("evolution", "Red clump and giant branch", figures.evolution(stars).svg(),
               f"{counted(stars.with_rc_prob, 'star')} with good_params, {drawn_as}; colour: "
               "predicted probability that a star burns helium in its core (orange), or is on the "
               "giant branch (blue).")  # fmt: skip
    yield ("age-metallicity", "Age and metallicity", figures.age_metallicity(stars).svg(),
           f"Metallicity against age, {_sample(stars, 'good_mass_age')}.")  # fmt: skip
    yield ("mass", "Masses", figures.masses(stars).svg(), f"Present-day masses: {both}.")
    yield ("age", "Ages", figures.ages(stars).svg(), f"Ages: {both}.")
    if stars.with_position:
        caption = (
            f"{counted(stars.with_position, 'star')} in Galactic coordinates, centred on the "
            "Galactic centre, longitude increasing to the left; equal-area projection."
        )
        if stars.sky_by_id:
            caption += (
                f" No position was given for {counted(stars.sky_by_id, 'star')}: it is that of the "
                "HEALPix pixel in the source_id, to one minute of arc."
            )
        yield ("sky", "Sky map", figures.sky(stars).svg(), caption)


def _error_figures(stars: Histograms) -> Iterator[Figure]:
    for column, (quantity, _) in UNCERTAINTIES.items():
        identifier = f"error-{column.removeprefix('e_')}"
        yield (identifier, f"Uncertainty of {quantity}", figures.uncertainty(stars, column).svg(),
               "Median, and the central 68 % of the stars.")  # fmt: skip
    yield (
        "magnitudes",
        "Magnitudes",
        figures.magnitudes(stars).svg(),
        "Number of stars against G.",
    )


def _sample(stars: Histograms, name: str) -> str:
    """Return which stars a picture shows."""
    good = getattr(stars, name)
    if good >= MIN_GOOD_STARS:
        return f"stars with {name}"
    return f"{counted(good, 'star')} with {name}, and in grey {stars.stars - good:,} without it"
