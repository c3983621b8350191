"""Which Gaia release a file of spectra is of, by what the file itself states."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalogproc.errors import ReleaseError
from catalogproc.io.remote_file import File, as_file
from catalogproc.readers.formats import is_named_parquet
from catalogproc.readers.star_rows import open_spectra
from catalogproc.readers.stated_release import is_named, stated_release
from catalogproc.readers.xp import read_spectra, spectra_columns
from catalogproc.release import BANDS, Release, load_release, shipped_releases, spectra_text
from catalogproc.vocabulary import WITHOUT_DESIGN as DESIGN
from catalogproc.vocabulary import Vocabulary

LOOK = 1024
"""Rows that are looked at. Each row is checked when it is read (inference/screening.py)."""


OTHER_KINDS = {"flux": "XP sampled spectra (XP_SAMPLED)", "basis_id": "canonical coefficients"}
"""Columns of spectra that are no coefficients of the archive, and what these are."""


@dataclass(frozen=True)
class FileSpectra:
    """What the first spectra of a file are.

    Attributes
    ----------
    bands
        By band: how many spectra there are of each (number of coefficients,
        basis_function_id or None). An absent band is left out.
    stated
        The release that the file names (stated_release.py), None where it names none.
    """

    bands: dict[str, Counter[tuple[int, int | None]]]
    stated: str | None = None

    @property
    def usual(self) -> dict[str, tuple[int, int | None]]:
        """By band what most spectra have; a band that all lack is left out."""
        return {name: found.most_common(1)[0][0] for name, found in self.bands.items() if found}

    def text(self, release: Release) -> str:
        """Return in words what is found, where a band differs from a release: that kind.

        Parameters
        ----------
        release
            The release that is wanted.
        """
        shown = self.usual
        for band, found in self.bands.items():
            other = [
                kind
                for kind, _ in found.most_common()
                if kind[0] != release.coefficients(band) or not same_basis(release, band, kind[1])
            ]
            shown |= {band: other[0]} if other else {}
        return spectra_text(shown)

    def agrees(self, counts: dict[str, int], release: Release) -> bool:
        """Return whether no kind of spectra is more frequent than that of a release.

        Parameters
        ----------
        counts
            By band the number of coefficients.
        release
            Its basis functions are compared where both are known.
        """
        for band, found in self.bands.items():
            fits = {
                kind: number
                for kind, number in found.items()
                if kind[0] == counts[band] and same_basis(release, band, kind[1])
            }
            if found and max(fits.values(), default=0) < max(found.values()):
                return False
        return True

    def releases(self) -> tuple[Release, ...]:
        """Return the releases that ship and have such spectra."""
        known = (load_release(name) for name in shipped_releases())
        return tuple(
            release
            for release in known
            if self.agrees(_counts(release), release)
            and (self.stated is None or is_named(release, self.stated))
        )


def same_basis(release: Release, band: str, found: int | None) -> bool:
    """Return whether a basis is that of a release, or either is not known.

    Parameters
    ----------
    release, band
        The release, and bp or rp.
    found
        The file's basis_function_id.
    """
    wanted = release.basis_function_id(band)
    return wanted is None or found is None or wanted == found


def file_spectra(path: str | File, release: Release | None = None) -> FileSpectra:
    """Return what the first spectra of a file are.

    Parameters
    ----------
    path
        The file.
    release
        What its columns are called.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    bands: dict[str, Counter[tuple[int, int | None]]] = {band: Counter() for band in BANDS}
    for batch in read_spectra(path, batch_rows=LOOK, rows=LOOK, release=release):
        for band, found in bands.items():
            found.update(_kinds(batch, band))
    return FileSpectra(bands, stated_release(open_spectra(as_file(path))))


def check_release(path: str | File, vocabulary: Vocabulary, *, rows: bool = True) -> None:
    """Check that a file's spectra are of the release that the model reads.

    Parameters
    ----------
    path
        The file. Single rows of another kind are rejected later, one by one.
    vocabulary
        The model's tokens.
    rows
        Whether the first rows are read, or only what the head of the file states. Of text at an
        address that is nothing.

    Raises
    ------
    ReleaseError
        Most of the first rows have another length or basis than the vocabulary's release; or
        the spectra are sampled or canonical (see :func:`check_kind`).
    InputError
        The file cannot be read.
    """
    if not rows and not is_named_parquet(as_file(path)):
        return
    _check_columns(path, vocabulary)
    if not rows:
        spectra_columns(path, release=vocabulary.data_release)
        return
    found = file_spectra(path, vocabulary.data_release)
    if found.stated and not is_named(vocabulary.data_release, found.stated):
        raise _named_otherwise(found.stated, vocabulary.data_release, path)
    if not found.agrees(_lengths(vocabulary), vocabulary.data_release):
        raise _not_read(found, vocabulary, path)


def _check_columns(path: str | File, vocabulary: Vocabulary) -> None:
    """Raise ReleaseError for sampled or canonical spectra that the model does not read."""
    own, release = vocabulary.basis_release, vocabulary.data_release
    if vocabulary.basis == "canonical" and release.same_basis(own):
        return
    columns = spectra_columns(path, release=release)
    for name, words in OTHER_KINDS.items():
        if name in columns:
            check_kind(vocabulary, words, ", ".join(columns), path)


def check_kind(
    vocabulary: Vocabulary, what: str, found: object = None, where: object = None
) -> None:
    """Check that the model reads spectra that are no coefficients of the archive.

    Parameters
    ----------
    vocabulary
        The model's tokens.
    what
        The spectra, one of OTHER_KINDS.
    found, where
        Their columns, by default ``what``, and the file.

    Raises
    ------
    ReleaseError
        The vocabulary's basis is the archive's; or spectra of a release are read that are not
        in the basis of canonical ones.
    """
    own, release = vocabulary.basis_release, vocabulary.data_release
    if vocabulary.basis == "archive":
        raise ReleaseError(
            f"{what} are not read by this model",
            wanted="XP continuous spectra, coefficients as the archive publishes them",
            found=found or what,
            where=where,
            advice="get the product XP_CONTINUOUS of the same stars, or use a model whose "
            "basis is canonical (--model)",
        )
    if not release.same_basis(own):
        raise ReleaseError(
            f"{what} are read as spectra of {release.title}",
            wanted=f"coefficients of {release.title}",
            found=found or what,
            where=where,
            advice=f"process them in a run of their own, as spectra of {own.title} (--release "
            f"{own.name}): they do not depend on the release",
        )


def check_batch(batch: pa.RecordBatch | pa.Table, vocabulary: Vocabulary) -> None:
    """Check that all spectra of a table are of the release that the model reads.

    Parameters
    ----------
    batch
        Rows of the contract xp_continuous; bases may be missing.
    vocabulary
        The model's tokens.

    Raises
    ------
    ReleaseError
        A spectrum has another length or basis than the vocabulary's release.
    """
    release, lengths = vocabulary.data_release, _lengths(vocabulary)
    for band in BANDS:
        name = f"{band}_basis_function_id"
        column, wanted = batch.column(f"{band}_coefficients"), release.basis_function_id(band)
        found = pc.min_max(pc.list_value_length(column)).as_py()
        good = {found["min"], found["max"]} <= {lengths[band], None}
        if good and wanted is not None and name in batch.schema.names:
            ids = pc.filter(batch.column(name), pc.is_valid(column))
            good = pc.all(pc.equal(ids, wanted)).as_py() is not False
        if not good:
            bands = {name: Counter(_kinds(batch, name)) for name in BANDS}
            raise _not_read(FileSpectra(bands), vocabulary, None)


def _named_otherwise(stated: str, release: Release, where: object) -> ReleaseError:
    return ReleaseError(
        "the file names another Gaia release",
        wanted=release.title,
        found=stated,
        where=where,
        advice="name that release with --release, or use a model of it (--model); where the file "
        "is wrong, correct its header",
    )


def row_faults(batch: pa.RecordBatch, release: Release) -> dict[int, tuple[str, str]]:
    """Return the rows that are no spectra of a release: reason and details by row.

    Parameters
    ----------
    batch
        Rows of the contract xp_continuous.
    release
        The release.
    """
    faults: dict[int, tuple[str, str]] = {}
    for band in BANDS:
        wanted, basis = release.coefficients(band), release.basis_function_id(band)
        for column in (f"{band}_coefficients", f"{band}_coefficient_errors"):
            lengths = pc.fill_null(pc.list_value_length(batch.column(column)), 0)
            counts = lengths.to_numpy(zero_copy_only=False)
            for row in np.flatnonzero((counts != wanted) & (counts != 0)):
                detail = f"{column}: wanted {wanted}, found {counts[row]}"
                faults.setdefault(int(row), ("wrong_length", detail))
        name = f"{band}_basis_function_id"
        if basis is not None and name in batch.schema.names:
            present = pc.is_valid(batch.column(f"{band}_coefficients"))
            other = pc.and_(present, pc.not_equal(batch.column(name), basis))
            for row in np.flatnonzero(pc.fill_null(other, False).to_numpy(zero_copy_only=False)):
                detail = f"{name}: wanted {basis}, found {batch.column(name)[int(row)]}"
                faults.setdefault(int(row), ("other_basis", detail))
    return faults


def _lengths(vocabulary: Vocabulary) -> dict[str, int]:
    return {band: vocabulary.spectrum_length(band) for band in BANDS}


def _not_read(found: FileSpectra, vocabulary: Vocabulary, where: object) -> ReleaseError:
    """Return the error for spectra of another release than the model's."""
    release, lengths = vocabulary.data_release, _lengths(vocabulary)
    wanted = {band: (lengths[band], release.basis_function_id(band)) for band in BANDS}
    titles = " or ".join(item.title for item in found.releases())
    return ReleaseError(
        "the spectra are of a Gaia release that the model does not read",
        wanted=f"{release.title}: {spectra_text(wanted)}",
        found=(f"{titles}: " if titles else "") + found.text(release),
        where=where,
        advice=_other_release(vocabulary, titles or "that release"),
    )


def _other_release(vocabulary: Vocabulary, titles: str) -> str:
    """Return what to do about spectra of another release than the one that is read."""
    if vocabulary.basis == "archive":
        return f"use a model that was trained on {titles} (--model)"
    return f"name the release of the spectra with --release; where it has no [design], {DESIGN}"


def release_of(path: str | File, release: Release | None = None) -> Release:
    """Return the release of a file's spectra.

    Parameters
    ----------
    path
        The file.
    release
        What the user says it is; None: what the file itself states.

    Raises
    ------
    ReleaseError
        The file is of another release, or of none that is known.
    InputError
        The file cannot be read.
    """
    found = file_spectra(path, release)
    if release is not None and found.stated and not is_named(release, found.stated):
        raise _named_otherwise(found.stated, release, path)
    if release is not None and found.agrees(_counts(release), release):
        return release
    known = found.releases()
    if release is None and known:
        return known[0]
    raise ReleaseError(
        "the spectra are of another Gaia release",
        wanted=f"{release.title}: {release.spectra_text()}"
        if release is not None
        else " | ".join(
            f"{r.title}: {r.spectra_text()}" for r in map(load_release, shipped_releases())
        ),
        found=spectra_text(found.usual),
        where=path,
        advice="name the release of these spectra: --release NAME or FILE",
    )


def _counts(release: Release) -> dict[str, int]:
    return {band: release.coefficients(band) for band in BANDS}


def _kinds(batch: pa.RecordBatch | pa.Table, band: str) -> list[tuple[int, int | None]]:
    """Return length and basis of a band in each row that has it."""
    column, name = batch.column(f"{band}_coefficients"), f"{band}_basis_function_id"
    ids = batch.column(name).to_pylist() if name in batch.schema.names else [None] * len(batch)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
    rows = np.flatnonzero(lengths)
    # Formats without null fill an absent band with NaN.
    flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    first = (np.cumsum(lengths) - lengths)[rows]
    values = pc.fill_null(flat.flatten().take(pa.array(first)), np.nan)
    known = rows[~np.isnan(values.to_numpy(zero_copy_only=False).astype(np.float64))]
    return [(int(lengths[row]), ids[row]) for row in known]
