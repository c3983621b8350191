"""ZIP archives as the Gaia archive's DataLink service hands them out: which files are spectra.

Of DR3 the product is XP_CONTINUOUS, in the structures RAW and INDIVIDUAL. Of DR4, as announced,
it is MEAN_SPECTRUM_XP, in DATAMODEL_GAIA and DATAMODEL_STANDARD; how the latter is laid out is not
known before its release.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from catalogproc.errors import JobError, plural
from catalogproc.io.archives import is_archive, unpack
from catalogproc.io.staging import stage
from catalogproc.readers.formats import READ_FILES, has_known_suffix

PRODUCTS = ("XP_CONTINUOUS", "MEAN_SPECTRUM_XP")
"""Words in the names of files that hold coefficients of XP mean spectra."""

SAMPLED = ("XP_SAMPLED",)
"""The same of sampled spectra, which are read where the archive holds no coefficients."""


def spectra_in(archive: Path, say: Callable[[str], None]) -> list[Path]:
    """Unpack a ZIP archive and return its files of spectra.

    Parameters
    ----------
    archive
        The archive. Where some of its files are named as one of PRODUCTS, else of SAMPLED, only
        these are read.
    say
        Is told of what is not read.

    Raises
    ------
    JobError
        It holds no file that can be read.
    InputError
        It cannot be unpacked.
    """
    members = unpack(archive, stage())
    files = [path for path in members if has_known_suffix(path)]
    files = _of(files, PRODUCTS) or _of(files, SAMPLED) or files
    if not files:
        raise JobError(
            "the ZIP archive holds no file that can be read",
            wanted=READ_FILES,
            found=", ".join(path.name for path in members[:10]) or "no files",
            where=archive,
            advice=_advice(members),
        )
    others = [path.name for path in members if path not in files]
    say(f"{archive}: {len(files)} of {plural(len(members), 'file')} read" + not_read(others))
    return files


def _of(files: Sequence[Path], words: Sequence[str]) -> list[Path]:
    return [path for path in files if any(word in path.name.upper() for word in words)]


def not_read(names: Sequence[str]) -> str:
    """Return the end of a message that names files that are not read; empty for none.

    Parameters
    ----------
    names
        The files.
    """
    if not names:
        return ""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"; not read: {', '.join(names[:5])}{more}"


def _advice(members: Sequence[Path]) -> str | None:
    if any(is_archive(path) for path in members):
        return "unpack it: the archives in it are read"
    if any(path.suffix.lower() == ".json" for path in members):
        return "ask DataLink for another FORMAT: votable, ecsv, csv or fits"
    return None
