"""External validation of a catalog, written as text, tables and a page with pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from catalogproc.datasets.table_io import column_names
from catalogproc.errors import JobError, ReleaseError, plural
from catalogproc.evaluation.external_checks import MIN_MEMBERS, Measured, clusters, repeats
from catalogproc.evaluation.external_tables import (
    SHARED,
    CatalogStars,
    read_good_stars,
    read_known,
    read_members,
)
from catalogproc.evaluation.recipes import Recipe, recognise
from catalogproc.evaluation.reference_catalog import read_reference
from catalogproc.evaluation.reference_comparison import catalog_identifiers, compare
from catalogproc.evaluation.reference_identifiers import IdentifierTables
from catalogproc.evaluation.reference_section import ABOUT, reference_section
from catalogproc.evaluation.report_section import Section, csv_text, table
from catalogproc.io.atomic import write_atomic
from catalogproc.report.model_card import card_html
from catalogproc.report.page import POLICY, environment
from catalogproc.rundir.manifest import RUN_FILE, read_identity
from catalogproc.rundir.summary import versions

REPEATED = ("teff", "logg", "m_h", "mass", "log_age")
MIN_PROBABILITY = 0.7
"""Members of a lower probability are left out."""

TEXT, PAGE = "crosscheck.md", "crosscheck.html"


@dataclass(frozen=True)
class References:
    """What a catalog is compared with; each may be missing.

    Attributes
    ----------
    members, known
        A member list, and a table of literature values of its clusters.
    again
        Folder of a run on other spectra of the same stars.
    catalogs
        Published catalogs.
    recipes
        Names or files of the recipes that these are read by; () recognises them by their columns.
    tables
        How their identifiers become those of the run, where they are others.
    probability
        Smallest membership probability.
    """

    members: Path | None = None
    known: Path | None = None
    again: Path | None = None
    catalogs: tuple[Path, ...] = ()
    recipes: tuple[str, ...] = ()
    tables: IdentifierTables = field(default_factory=IdentifierTables)
    probability: float = MIN_PROBABILITY


def crosscheck(catalog: Path, output: Path, references: References) -> tuple[str, list[Path]]:
    """Validate a finished catalog against clusters, repeated spectra and published catalogs.

    Parameters
    ----------
    catalog
        Folder that ``run`` wrote.
    output
        Folder to write crosscheck.md, crosscheck.html and one CSV a check.
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
    ContractError
        No recipe fits a published catalog.
    ReleaseError
        The identifiers of a published catalog are those of another Gaia release.
    """
    if not (references.members or references.again or references.catalogs):
        raise JobError(
            "nothing to compare the catalog with",
            wanted="--catalog, --members or --again", found="none of them",
        )  # fmt: skip
    sections = list(_sections(catalog, references))
    heading = f"# External validation of {catalog.resolve().name}"
    about = [ABOUT] if references.catalogs else []
    text = "\n\n".join([heading, *about, *(one.markdown for one in sections)]) + "\n"
    content = {TEXT: text, PAGE: _page(catalog, sections, about)}
    for section in sections:
        content |= section.files
    for name, one in content.items():
        write_atomic(output / name, one.encode())
    summary = "\n\n".join([heading, *about, *(one.summary for one in sections)])
    return summary, [output / name for name in content]


def _sections(catalog: Path, references: References) -> Iterator[Section]:
    if references.catalogs:
        yield from _published(catalog, references)
    if references.members is None and references.again is None:
        return
    stars = read_good_stars(catalog, REPEATED)
    if references.members is not None:
        yield _clusters(stars, references.members, references)
    if references.again is not None:
        again = read_good_stars(references.again, REPEATED)
        yield _repeats(stars, again, references.again)


def _published(catalog: Path, references: References) -> Iterator[Section]:
    """One section for each published catalog that the files hold."""
    stars = catalog_identifiers(catalog)
    read = [
        (path, recipe)
        for path in (_table_of(path) for path in references.catalogs)
        for recipe in recognise(column_names(path), references.recipes, path)
    ]
    needed = [_tables(catalog, recipe, path, references.tables) for path, recipe in read]
    taken: list[str] = []
    for (path, recipe), tables in zip(read, needed, strict=True):
        reference = read_reference(path, recipe, stars, tables)
        section = reference_section(compare(catalog, reference), taken)
        taken.append(section.name)
        yield section


def _table_of(path: Path) -> Path:
    """The table of a published catalog; of a run, its catalog."""
    return path / "catalog" if (path / RUN_FILE).is_file() else path


def _tables(catalog: Path, recipe: Recipe, path: Path, given: IdentifierTables) -> IdentifierTables:
    """Return the tables that a catalog needs.

    Identifiers of two Gaia releases may name different stars. Raises ReleaseError.
    """
    same = replace(given, crosswalk=None)
    if not recipe.release or not (catalog / RUN_FILE).is_file():
        return same
    release = read_identity(catalog).data_release
    if release.name == recipe.release:
        return same
    if given.crosswalk is not None and (recipe.release, release.name) == ("dr3", "dr4"):
        return given
    raise ReleaseError(
        "the identifiers of the published catalog are those of another Gaia release",
        wanted=f"identifiers of {release.title}", where=path,
        found=f"{recipe.title}: those of {recipe.release}",
        advice="name the table that has both: --crosswalk dr3_neighbourhood",
    )  # fmt: skip


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
        f"{path.name} lists {plural(len(listed.source_id), 'star')}; {len(likely.source_id):,} "
        f"have a membership probability of {references.probability:g} or more; {found:,} of these "
        f"are good stars of the catalog. Of {len(np.unique(likely.cluster)):,} clusters "
        f"{len({score.cluster for score in scores}):,} have {MIN_MEMBERS} or more stars. The "
        "stars of a cluster share one age and one composition. Where the uncertainties are right, "
        "chi2 is 1, the intrinsic scatter is 0, and the slope with log g is 0 within its error."
    )
    return _section("clusters", "Clusters", text, scores)


def _repeats(stars: CatalogStars, repeated: CatalogStars, path: Path) -> Section:
    _, one, two = np.intersect1d(stars.source_id, repeated.source_id, return_indices=True)
    scores = []
    for label in REPEATED:
        for kind, name in (("error", label), ("noise", f"{label}, input uncertainty")):
            first = Measured(stars.value[label], getattr(stars, kind)[label])
            second = Measured(repeated.value[label], getattr(repeated, kind)[label])
            scores.append(repeats(name, first.rows(one), second.rows(two)))
    text = (
        f"{plural(len(one), 'good star')} in common with {path.name} too. Both values are of one "
        "model and one star; they differ by the noise of two spectra. With the input uncertainty "
        "z has a scatter of 1; with the total uncertainty it is smaller."
    )
    return _section("repeats", "Repeated spectra", text, scores)


def _section(name: str, title: str, text: str, scores: Sequence[object]) -> Section:
    lines = list(table(scores)) if scores else ["Nothing to compare."]
    rows = [asdict(one) for one in scores]  # type: ignore[call-overload]
    return Section(name, title, (text, "", *lines), {f"{name}.csv": csv_text(rows)})


def _page(catalog: Path, sections: Sequence[Section], about: Sequence[str]) -> str:
    """Return the HTML page."""
    shown = [
        {
            "name": section.name, "title": section.title, "caution": section.caution,
            "figures": section.figures,
            "html": card_html("\n".join([*section.lines, *section.more])),
        }
        for section in sections
    ]  # fmt: skip
    page: str = environment().get_template("crosscheck.html.jinja").render(
        title=f"External validation of {catalog.resolve().name}",
        about=" ".join(about),
        sections=shown, policy=POLICY, generator=f"catalogproc {versions()['catalogproc']}",
    )  # fmt: skip
    return page
