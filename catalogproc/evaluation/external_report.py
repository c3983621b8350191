"""External validation of a catalog, written as a page and tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from catalogproc.errors import JobError
from catalogproc.evaluation.external_checks import (
    MIN_MEMBERS,
    ClusterScore,
    Measured,
    RepeatScore,
    clusters,
    repeats,
    seismic,
)
from catalogproc.evaluation.external_tables import (
    SHARED,
    CatalogStars,
    read_good_stars,
    read_known,
    read_masses,
    read_members,
)
from catalogproc.evaluation.scorecard import figure, markdown
from catalogproc.evaluation.scores import DecileScore, Score, by_decile, score
from catalogproc.io.atomic import write_atomic

REPEATED = ("teff", "logg", "m_h", "mass", "log_age")
MIN_PROBABILITY = 0.7
"""Members of a lower probability are left out."""

Scores = list[ClusterScore] | list[RepeatScore] | list[Score] | list[DecileScore]
Section = tuple[str, str, Scores]


@dataclass(frozen=True)
class References:
    """What a catalog is compared with; each may be missing.

    Attributes
    ----------
    members, known
        A member list, and a table of literature values of its clusters.
    again
        Folder of a run on other spectra of the same stars.
    masses
        A table of masses from elsewhere, such as seismic ones.
    probability
        Smallest membership probability.
    """

    members: Path | None = None
    known: Path | None = None
    again: Path | None = None
    masses: Path | None = None
    probability: float = MIN_PROBABILITY


def crosscheck(catalog: Path, output: Path, references: References) -> tuple[str, list[Path]]:
    """Validate a finished catalog against clusters, repeated spectra and known masses.

    Parameters
    ----------
    catalog
        Folder that ``run`` wrote.
    output
        Folder to write crosscheck.md and one CSV a check.
    references
        What to compare with.

    Returns
    -------
    The text to print, and the files written.

    Raises
    ------
    JobError
        There is nothing to compare with.
    InputError
        A table cannot be read, or lacks columns.
    """
    if references.members is None and references.again is None and references.masses is None:
        raise JobError(
            "nothing to compare the catalog with",
            wanted="--members, --again or --masses", found="none of them",
        )  # fmt: skip
    stars = read_good_stars(catalog, REPEATED)
    sections = []
    if references.members is not None:
        sections.append(_clusters(stars, references.members, references))
    if references.again is not None:
        again = read_good_stars(references.again, REPEATED)
        sections.append(_repeats(stars, again, references.again))
    if references.masses is not None:
        sections += _masses(stars, references.masses)
    page = _page(catalog, stars, sections)
    paths = [output / "crosscheck.md"]
    write_atomic(paths[0], page.encode())
    for name, _, scores in sections:
        paths.append(output / f"{name}.csv")
        write_atomic(paths[-1], _csv(scores).encode())
    return page, paths


def _clusters(stars: CatalogStars, path: Path, references: References) -> Section:
    listed = read_members(path)
    likely = listed.likely(references.probability)
    scores = clusters(
        likely,
        stars.source_id,
        {label: Measured(stars.value[label], stars.error[label]) for label in SHARED},
        None if references.known is None else read_known(references.known),
        stars.logg,
    )
    found = np.isin(likely.source_id, stars.source_id).sum()
    text = (
        f"{path.name} lists {len(listed.source_id):,} stars; {len(likely.source_id):,} have a "
        f"membership probability of {references.probability:g} or more; {found:,} of these are "
        f"good stars of the catalog. Of {len(np.unique(likely.cluster)):,} clusters "
        f"{len({score.cluster for score in scores}):,} have {MIN_MEMBERS} or more stars. The "
        "stars of a cluster share one age and one composition. Where the uncertainties are right, "
        "chi2 is 1, the intrinsic scatter is 0, and the slope with log g is 0 within its error."
    )
    return "clusters", text, scores


def _repeats(stars: CatalogStars, repeated: CatalogStars, path: Path) -> Section:
    _, one, two = np.intersect1d(stars.source_id, repeated.source_id, return_indices=True)
    scores = []
    for label in REPEATED:
        for kind, name in (("error", label), ("noise", f"{label}, input uncertainty")):
            first = Measured(stars.value[label], getattr(stars, kind)[label])
            second = Measured(repeated.value[label], getattr(repeated, kind)[label])
            scores.append(repeats(name, first.rows(one), second.rows(two)))
    text = (
        f"{len(one):,} stars are good stars in {path.name} too. Both values are of one model and "
        "one star; they differ by the noise of two spectra. With the input uncertainty z has a "
        "scatter of 1; with the total uncertainty it is smaller."
    )
    return "repeats", text, scores


def _masses(stars: CatalogStars, path: Path) -> list[Section]:
    ids, mass, error = read_masses(path)
    ours = Measured(stars.value["mass"], stars.error["mass"])
    differences = seismic(stars.source_id, ours, ids, Measured(mass, error))
    text = (
        f"{path.name} lists {len(ids):,} stars; {np.isin(ids, stars.source_id).sum():,} are "
        f"good stars of the catalog, {differences.pairs:,} with good masses. Catalog minus "
        "reference, over their joint uncertainty."
    )
    _, one, two = np.intersect1d(stars.source_id, ids, return_indices=True)
    pairs = (ours.value[one], mass[two], ours.error[one], error[two])
    return [
        ("masses", text, [differences]),
        ("mass_skill", SKILL, [score("mass", *pairs)]),
        ("mass_by_decile", DECILES, list(by_decile("mass", *pairs))),
    ]


SKILL = (
    "A small scatter is no skill where the masses themselves are alike: spread is the scatter of "
    "the reference masses, r2 is 1 minus the mean square difference over their variance, slope "
    "that of the catalog's masses on them, slope of truth that of them on the catalog's."
)
DECILES = "The same stars in ten ranges of the reference mass, Msun."

TITLES = {
    "clusters": "Clusters", "repeats": "Repeated spectra", "masses": "Masses",
    "mass_skill": "Masses: skill", "mass_by_decile": "Masses: by reference mass",
}  # fmt: skip


def _page(catalog: Path, stars: CatalogStars, sections: Iterable[Section]) -> str:
    lines = [f"# External validation of {catalog.name}", "",
             f"{len(stars.source_id):,} stars with good_params (good stars)."]  # fmt: skip
    for name, text, scores in sections:
        lines += ["", f"## {TITLES[name]}", "", text, ""]
        lines += _table(scores) if scores else ["Nothing to compare."]
    return "\n".join(lines) + "\n"


def _table(scores: Scores) -> Iterator[str]:
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


def _csv(scores: Scores) -> str:
    out = io.StringIO()
    if scores:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(field.name for field in fields(scores[0]))
        for score in scores:
            writer.writerow(
                f"{x:.6g}" if isinstance(x, float) else x for x in asdict(score).values()
            )
    return out.getvalue()
