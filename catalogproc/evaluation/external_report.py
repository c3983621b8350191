"""A catalog's cross-checks as a page and tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np

from catalogproc.errors import JobError
from catalogproc.evaluation.external_checks import (
    LEAST_MEMBERS,
    ClusterScore,
    RepeatScore,
    clusters,
    repeats,
    seismic,
)
from catalogproc.evaluation.external_tables import (
    SHARED,
    Answers,
    read_answers,
    read_known,
    read_masses,
    read_members,
)
from catalogproc.evaluation.scorecard import figure, markdown
from catalogproc.io.atomic import write_whole

REPEATED = ("teff", "logg", "m_h", "mass", "log_age")
LIKELY = 0.7
"""Stars that belong to their cluster with less do not count."""

Section = tuple[str, str, list[ClusterScore] | list[RepeatScore]]


def crosscheck(
    catalog: Path,
    output: Path,
    *,
    members: Path | None = None,
    known: Path | None = None,
    again: Path | None = None,
    masses: Path | None = None,
    probability: float = LIKELY,
) -> tuple[str, list[Path]]:
    """Hold a finished catalog against clusters, other spectra of its stars, and known masses.

    Parameters
    ----------
    catalog, again
        Folders that ``run`` wrote, the second from other spectra of the same stars.
    members, known
        A member list, and what the literature says of its clusters.
    masses
        Masses from elsewhere, such as from oscillations.
    probability
        With which a star must belong to its cluster.

    Returns
    -------
    What to print, and the files in ``output``: crosscheck.md and a CSV a check.

    Raises
    ------
    JobError
        Nothing to check against was given.
    InputError
        A table cannot be read, or lacks columns.
    """
    if members is None and again is None and masses is None:
        raise JobError(
            "nothing to check the catalog against",
            wanted="--members, --again or --masses", found="none of them",
        )  # fmt: skip
    answers = read_answers(catalog, REPEATED)
    sections = []
    if members is not None:
        sections.append(_clusters(answers, members, known, probability))
    if again is not None:
        sections.append(_repeats(answers, read_answers(again, REPEATED), again))
    if masses is not None:
        sections.append(_masses(answers, masses))
    page = _page(catalog, answers, sections)
    paths = [output / "crosscheck.md"]
    write_whole(paths[0], page.encode())
    for name, _, scores in sections:
        paths.append(output / f"{name}.csv")
        write_whole(paths[-1], _csv(scores).encode())
    return page, paths


def _clusters(answers: Answers, path: Path, known: Path | None, probability: float) -> Section:
    listed = read_members(path)
    likely = listed.likely(probability)
    scores = clusters(
        likely,
        answers.source_id,
        {label: (answers.value[label], answers.error[label]) for label in SHARED},
        None if known is None else read_known(known),
        against=answers.logg,
    )
    found = np.isin(likely.source_id, answers.source_id).sum()
    words = (
        f"{len(listed.source_id):,} stars in {path.name}, {len(likely.source_id):,} of them "
        f"members with a probability of {probability:g} or more, {found:,} of these good stars of "
        f"the catalog. Of {len(np.unique(likely.cluster)):,} clusters "
        f"{len({score.cluster for score in scores}):,} have {LEAST_MEMBERS} or more. The stars of "
        "a cluster share one age and one composition: chi2 is 1, and nothing intrinsic is left, "
        "where the stated errors hold; the slope along log g is 0 within its error."
    )
    return "clusters", words, scores


def _repeats(answers: Answers, others: Answers, path: Path) -> Section:
    _, one, two = np.intersect1d(answers.source_id, others.source_id, return_indices=True)
    scores = []
    for label in REPEATED:
        for kind, words in (("error", label), ("noise", f"{label}, noise alone")):
            ours, theirs = (getattr(x, kind)[label] for x in (answers, others))
            scores.append(
                repeats(
                    words, answers.value[label][one], ours[one], others.value[label][two],
                    theirs[two],
                )
            )  # fmt: skip
    words = (
        f"{len(one):,} stars are good in {path.name} too. Both answers are of one model and one "
        "star and differ by the noise of two spectra: over the part of their errors that is due "
        "to what was read (noise alone) z scatters by 1; over the whole errors by less."
    )
    return "repeats", words, scores


def _masses(answers: Answers, path: Path) -> Section:
    ids, mass, error = read_masses(path)
    score = seismic(
        answers.source_id, answers.value["mass"], answers.error["mass"], ids, mass, error
    )
    words = (
        f"{len(ids):,} stars in {path.name}, {np.isin(ids, answers.source_id).sum():,} of them "
        f"good stars of the catalog, {score.pairs:,} with good masses. Ours minus theirs, over "
        "both errors."
    )
    return "masses", words, [score]


TITLES = {"clusters": "Clusters", "repeats": "The same stars again", "masses": "Masses"}


def _page(catalog: Path, answers: Answers, sections: Iterable[Section]) -> str:
    lines = [f"# Cross-checks of {catalog.name}", "",
             f"{len(answers.source_id):,} stars with good_params."]  # fmt: skip
    for name, words, scores in sections:
        lines += ["", f"## {TITLES[name]}", "", words, ""]
        lines += _table(scores) if scores else ["Nothing to compare."]
    return "\n".join(lines) + "\n"


def _table(scores: list[ClusterScore] | list[RepeatScore]) -> Iterator[str]:
    names = [field.name for field in fields(scores[0])]
    header = tuple(name.replace("_", " ") for name in names)
    cells = [
        tuple(
            value if isinstance(value, str) else f"{value:,}" if isinstance(value, int)
            else figure(value)
            for value in asdict(score).values()
        )
        for score in scores
    ]  # fmt: skip
    return markdown(header, cells)


def _csv(scores: list[ClusterScore] | list[RepeatScore]) -> str:
    out = io.StringIO()
    if scores:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(field.name for field in fields(scores[0]))
        for score in scores:
            writer.writerow(
                f"{x:.6g}" if isinstance(x, float) else x for x in asdict(score).values()
            )
    return out.getvalue()
