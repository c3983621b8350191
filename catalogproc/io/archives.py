"""ZIP archives as the Gaia archive's DataLink service hands them out, unpacked to the stage."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path, PurePath, PurePosixPath

from catalogproc.errors import InputError
from catalogproc.io.atomic import publish, scratch_folder
from catalogproc.io.free_space import require_space
from catalogproc.io.hashes import file_sha256

SCHEME = "zip"
_MEMBERS = "members"
_BLOCK = 1 << 20


def is_archive(path: PurePath) -> bool:
    """Return whether a file's name is that of a ZIP archive.

    Parameters
    ----------
    path
        The file; it need not exist.
    """
    return path.suffix.lower() == ".zip"


def unpack(path: Path, stage: Path) -> list[Path]:
    """Unpack a ZIP archive, once, and return its files in the order of their names.

    Parameters
    ----------
    path
        The archive.
    stage
        The folder for staged files. The archive's own folder in it is named by its content.

    Returns
    -------
    list of Path
        The unpacked files; hidden files are left out.

    Raises
    ------
    InputError
        The archive is damaged, encrypted, larger than the free space, or names a file outside
        of itself.
    """
    target = stage / SCHEME / Path(*path.absolute().parts[1:])
    mark = target / ".sha256"
    try:
        digest = file_sha256(path)
        if not (mark.is_file() and mark.read_text() == digest):
            with scratch_folder(target.parent, target.name) as scratch:
                _extract(path, scratch / _MEMBERS)
                (scratch / _MEMBERS / mark.name).write_text(digest)
                publish(scratch / _MEMBERS, target, overwrite=True)
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise InputError(
            "the ZIP archive cannot be unpacked",
            wanted="a whole archive without a password",
            found=f"{type(error).__name__}: {error}",
            where=path,
            advice="fetch it again",
        ) from error
    found = (file for file in target.rglob("*") if file.is_file())
    return sorted(file for file in found if not file.name.startswith((".", "_")))


def _extract(path: Path, folder: Path) -> None:
    folder.mkdir()
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        size = sum(member.file_size for member in members)
        advice = "free some space, or set $CATALOGPROC_STAGE to a folder on a larger disk"
        require_space(folder, size, "too little space to unpack a ZIP archive", advice, where=path)
        for member in members:
            place = PurePosixPath(member.filename)
            if place.is_absolute() or ".." in place.parts or "\\" in member.filename:
                raise zipfile.BadZipFile(f"a member outside of the archive: {member.filename!r}")
            target = folder.joinpath(*place.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("xb") as sink:
                shutil.copyfileobj(source, sink, _BLOCK)
