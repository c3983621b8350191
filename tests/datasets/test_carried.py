"""Datasets for another Gaia release: built with a crosswalk, or carried over from DR3."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.releases import PHOTOMETRY, crosswalk, design_file, own_file, rotated
from support.survey_files import Sky, write_fits
from support.xp_files import parquet_bytes, put

from catalogproc.datasets.carried import NO_SPECTRUM, NOT_LINKED, CarriedFiles, carry
from catalogproc.datasets.cuts import Cuts
from catalogproc.datasets.dataset import Report, dataset_facts, load_dataset
from catalogproc.datasets.star_reader import StarFiles
from catalogproc.datasets.surveys import SurveyFiles, dataset_from_surveys
from catalogproc.datasets.writer import Selection, Split
from catalogproc.errors import InputError, JobError, ReleaseError
from catalogproc.features.release_files import add_release
from catalogproc.release import Release
from catalogproc.vocabulary import BANDS, load_vocabulary

WIDE = Selection(Cuts(box=None), Split(published=False))
UNLINKED, UNSEEN = 30, 20


@dataclass(frozen=True)
class Made:
    """Survey files with identifiers of DR3, and the stars' spectra in DR3 and in DR4."""

    folder: Path
    release: Release
    old: SurveyFiles
    new_ids: dict[int, int]
    report: Report

    def rows(self, name: str) -> dict[tuple[int, int], dict]:
        """Rows by source_id and repeat."""
        parts = [
            pq.read_table(self.folder / name / f"{part}.parquet") for part in ("train", "test")
        ]
        return {(r["source_id"], r["repeat"]): r for r in pa.concat_tables(parts).to_pylist()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("carried")
    sky = Sky.make(folder / "simulated")
    write_fits(folder / "distmass.fits", sky.distmass)
    write_fits(folder / "allStar.fits", sky.allstar, wide=True)
    ids = sky["source_id"]
    new_ids = np.where(np.arange(len(ids)) % 2, ids, ids + 11)
    release = add_release([design_file(folder)], folder / "next.toml",
                          str(own_file(folder, PHOTOMETRY))).release  # fmt: skip
    spectra = rotated(sky.spectra).set_column(0, "source_id", pa.array(new_ids))
    put(folder, "old.parquet", parquet_bytes(sky.spectra))
    put(folder, "new.parquet", parquet_bytes(spectra.slice(0, len(ids) - UNSEEN)))
    source = sky.source.drop_columns(["ebv", "e_ln_ebv"])
    put(folder, "old_gaia.parquet", parquet_bytes(source))
    place = source.column_names.index("source_id")
    moved = source.set_column(place, "source_id", pa.array(new_ids))
    put(folder, "new_gaia.parquet", parquet_bytes(moved))
    put(folder, "link.parquet", parquet_bytes(crosswalk(ids[UNLINKED:], new_ids[UNLINKED:])))
    old = SurveyFiles(folder / "allStar.fits", folder / "distmass.fits",
                      (folder / "old_gaia.parquet",), (folder / "old.parquet",))  # fmt: skip
    report = dataset_from_surveys(old, folder / "dr3", WIDE)
    return Made(
        folder, release, old, dict(zip(ids.tolist(), new_ids.tolist(), strict=True)), report
    )


def carried(made: Made, basis: str = "canonical", **changed) -> CarriedFiles:  # type: ignore[no-untyped-def]
    files = CarriedFiles(
        made.folder / "dr3",
        StarFiles([made.folder / "new.parquet"], [made.folder / "new_gaia.parquet"]),
        made.folder / "link.parquet",
        load_vocabulary(release=made.release, basis=basis),
    )
    return replace(files, **changed)


@pytest.mark.parametrize("basis", ["canonical", "archive"])
def test_labels_stay_and_spectra_are_those_of_the_other_release(made: Made, basis: str) -> None:
    report = carry(carried(made, basis), made.folder / basis)
    old, new = made.rows("dr3"), made.rows(basis)
    lost = report.left_out
    assert set(lost) == {NOT_LINKED, NO_SPECTRUM}
    assert sum(report.rows.values()) + sum(lost.values()) == sum(made.report.rows.values())
    assert report.notes["rows with a spectrum"] == len(old)
    assert report.notes["of these, with a spectrum in the other release"] == len(new)
    back = {b: a for a, b in made.new_ids.items()}
    for (star, repeat), row in new.items():
        before = old[back[star], repeat]
        for name in ("apogee_id", "teff", "mass", "e_mass", "log_age", "split"):
            assert row[name] == before[name] or row[name] != row[name], name
        assert row["phot_g_mean_mag"] == pytest.approx(before["phot_g_mean_mag"], abs=1e-5)
        assert row["bprp"] == pytest.approx(before["bprp"], abs=1e-5)
    assert {row["split"] for row in new.values()} == {"train", "test"}
    assert sum(a != b for a, b in made.new_ids.items() if (b, 0) in new) > len(new) // 3
    facts = dataset_facts(made.folder / basis)
    assert facts["release"] == "own"
    assert facts["carried from"]["release"] == "dr3"


def test_canonical_spectra_of_both_releases_are_alike(made: Made) -> None:
    """Those of the carried dataset, and those of one that is built of DR3's spectra."""
    if not (made.folder / "canonical").exists():
        carry(carried(made), made.folder / "canonical")
    vocabulary = load_vocabulary(basis="canonical")
    dataset_from_surveys(replace(made.old, vocabulary=vocabulary), made.folder / "known", WIDE)
    known, new = made.rows("known"), made.rows("canonical")
    back, z = {b: a for a, b in made.new_ids.items()}, []
    for (star, repeat), row in new.items():
        before = known[back[star], repeat]
        for band in BANDS:
            values, wanted = (np.array(r[f"{band}_coefficients"]) for r in (row, before))
            assert len(values) == 55
            z.append((values - wanted)[:25] / np.array(before[f"{band}_coefficient_errors"])[:25])
    assert np.median(np.abs(z)) < 0.1
    train, test = load_dataset(made.folder / "canonical", vocabulary.for_release(made.release))
    parts = [row["split"] for (_, repeat), row in new.items() if repeat == 0]
    assert (len(set(train.ids)), len(test.ids)) == (parts.count("train"), parts.count("test"))
    present = np.isfinite(train.values[:, vocabulary.coefficient_columns("rp")[:5]])
    assert present[:, 0].all()  # of a faint star the signal ends early
    assert present.mean() > 0.9


def test_the_surveys_are_joined_with_spectra_of_another_release(made: Made) -> None:
    files = replace(
        made.old, gaia_source=(made.folder / "new_gaia.parquet",),
        xp=(made.folder / "new.parquet",), crosswalk=made.folder / "link.parquet",
        vocabulary=load_vocabulary(release=made.release),
    )  # fmt: skip
    report = dataset_from_surveys(files, made.folder / "built", WIDE)
    assert report.notes["of APOGEE's rows, not in the crosswalk"] >= UNLINKED - 2
    old, new = made.rows("dr3"), made.rows("built")
    back = {b: a for a, b in made.new_ids.items()}
    assert len(new) > 0.8 * len(old)
    for (star, repeat), row in new.items():
        assert len(row["bp_coefficients"]) == 51
        assert row["apogee_id"] == old[back[star], repeat]["apogee_id"]
    # Without the crosswalk only stars are found whose identifiers stayed.
    few = dataset_from_surveys(replace(files, crosswalk=None), made.folder / "few", WIDE)
    assert sum(few.rows.values()) < 0.6 * len(old)


def test_a_dataset_is_for_its_release_alone(made: Made, tmp_path: Path) -> None:
    if not (made.folder / "canonical").exists():
        carry(carried(made), made.folder / "canonical")
    with pytest.raises(ReleaseError, match=r"another Gaia release(.|\n)*--release"):
        load_dataset(made.folder / "canonical", load_vocabulary(basis="canonical"))
    load_dataset(made.folder / "canonical")  # its own vocabulary
    with pytest.raises(JobError, match="exists already"):
        carry(carried(made), made.folder / "dr3")
    with pytest.raises(ReleaseError):
        carry(carried(made, stars=StarFiles([made.folder / "old.parquet"])), tmp_path / "a")
    with pytest.raises(InputError, match="no readable dataset"):
        carry(carried(made, dataset=tmp_path), tmp_path / "a")
