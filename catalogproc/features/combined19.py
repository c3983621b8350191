"""Staging of the map Combined19: the file of mwdust as sorted arrays for all processes.

mwdust reads the whole map into each process and rearranges it there in every call; it also accepts
incomplete downloads. Here the file is checked, sorted by pixel and written as arrays that are
mapped into memory: ``pixels.npy`` and ``ebv.npy``, and ``map.json`` with sizes and checksums (see
dust_map.py). A map is staged completely or not at all, by one process at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import CatalogprocError, InputError, Refusal
from catalogproc.features.dust_map import (
    CURVES,
    FACTS,
    FORMAT,
    MAP,
    PIXELS,
    POINTS,
    DustMap,
    map_folder,
    open_dust_map,
)
from catalogproc.io.atomic import publish, scratch_folder
from catalogproc.io.hashes import file_sha256, sha256
from catalogproc.io.locks import Lock
from catalogproc.io.temporary_files import remove_stale

FILE = Path("combined19") / "combine19.h5"
"""Where mwdust keeps the map in its folder."""

CREDIT = (
    "Combined19 of mwdust (Bovy et al. 2016): Marshall et al. 2006, Green et al. 2019, "
    "Drimmel et al. 2003; doi:10.5281/zenodo.3566060"
)

# mwdust has the address; in a separate process, because it makes folders at import and loads
# matplotlib.
_DOWNLOAD = "from mwdust import Combined19; Combined19.download()"
_ROWS = 65_536

Report = Callable[[int, int], None]


def stage(
    folder: Path | str | None = None,
    source: Path | str | None = None,
    progress: Report | None = None,
) -> DustMap:
    """Stage the map, if it is not staged yet, and open it.

    Parameters
    ----------
    folder
        Where maps are staged (see :func:`~catalogproc.features.dust_map.map_folder`).
    source
        The file combine19.h5. Where none is given: the one in mwdust's folder
        ($DUST_DIR, else ~/.mwdust), if there is one; else mwdust downloads it.
    progress
        Called with the pixels staged so far, and all.

    Raises
    ------
    Refusal
        Another map is staged there than the ``source`` given.
    InputError
        The source is no whole file of mwdust's layout.
    CatalogprocError
        The folder cannot be written, or the download failed.
    """
    place = map_folder(folder)
    with _alone(place):
        if (place / MAP / FACTS).is_file():
            staged = open_dust_map(place)
            if source is not None:
                _check_same(staged, Path(source))
            return staged
        with scratch_folder(place, MAP) as scratch:
            file = Path(source) if source is not None else _found() or _downloaded(scratch)
            finished = scratch / MAP
            finished.mkdir()
            _pack(file, finished, progress)
            try:
                publish(finished, place / MAP)
            except OSError:
                if not (place / MAP / FACTS).is_file():
                    raise
    return open_dust_map(place)


def verify(dust_map: DustMap) -> None:
    """Read a staged map again and compare its checksums.

    Parameters
    ----------
    dust_map
        The map.

    Raises
    ------
    InputError
        A checksum differs.
    """
    for name, recorded in dust_map.facts["arrays"].items():
        found = _sha256(dust_map.folder / name)
        if found != recorded["sha256"]:
            raise InputError(
                "the staged dust map is damaged",
                wanted=recorded["sha256"],
                found=found,
                where=dust_map.folder / name,
                advice="remove its folder and give catalogproc dust again",
            )


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """One process at a time; the others wait. Folders of killed ones are removed.

    Where the file system has no locks, two may stage the same map at once, each in a separate
    folder; the first to finish publishes it.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refusal(
            "the folder of dust maps cannot be written",
            found=error,
            where=place,
            advice="make it writable, or name another with --folder",
        ) from error
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            stack.enter_context(Lock(place / f".{MAP}.lock", wait=True))
        remove_stale([place])
        yield


def _found() -> Path | None:
    """The file in mwdust's folder."""
    named = os.environ.get("DUST_DIR")
    file = (Path(named) if named else Path.home() / ".mwdust") / FILE
    return file if file.is_file() else None


def _downloaded(scratch: Path) -> Path:
    """The file, downloaded by mwdust into a temporary folder."""
    target = scratch / "download"
    target.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _DOWNLOAD],
        env=os.environ | {"DUST_DIR": str(target), "MPLBACKEND": "agg"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    if done.returncode or not (target / FILE).is_file():
        lines = done.stderr.strip().splitlines() or ["nothing"]
        raise CatalogprocError(
            "mwdust could not download its map",
            found=lines[-1][:300],
            advice="fetch https://zenodo.org/record/3566060/files/combine19.h5 on a machine with a "
            "network, then: catalogproc dust --from combine19.h5",
        )
    return target / FILE


def _check_same(staged: DustMap, source: Path) -> None:
    found = _sha256(source)
    if found != staged.facts["source"]["sha256"]:
        raise Refusal(
            "another dust map is staged already",
            wanted=f"the one with SHA-256 {staged.facts['source']['sha256']}",
            found=found,
            where=source,
            advice=f"remove {staged.folder}, or name another folder with --folder",
        )


def _pack(file: Path, folder: Path, progress: Report | None) -> None:
    """Write the arrays and the facts of mwdust's file into a folder. Raises InputError."""
    import h5py

    source = {"file": file.name, "bytes": 0, "sha256": _sha256(file)}
    source["bytes"] = file.stat().st_size
    try:
        with h5py.File(file, "r") as content:
            uniq, nsides = _pixels(content["pixel_info"])
            given = content["best_fit"]
            if given.shape != (len(uniq), POINTS) or given.dtype.kind != "f":
                raise ValueError(f"best_fit is {given.dtype}, of shape {given.shape}")
            order = np.argsort(uniq, kind="stable")
            np.save(folder / PIXELS, uniq[order])
            place = np.empty(len(order), dtype=np.int64)
            place[order] = np.arange(len(order))
            curves = np.lib.format.open_memmap(
                folder / CURVES, mode="w+", dtype=given.dtype.newbyteorder("="), shape=given.shape
            )
            for start in range(0, len(uniq), _ROWS):
                curves[place[start : start + _ROWS]] = given[start : start + _ROWS]
                if progress is not None:
                    progress(min(start + _ROWS, len(uniq)), len(uniq))
            curves.flush()
    except (OSError, KeyError, ValueError, TypeError, IndexError) as error:
        raise InputError(
            "the file is not the map that mwdust distributes",
            wanted=f"combine19.h5, with pixel_info and best_fit (pixels, {POINTS})",
            found=error,
            where=file,
            advice="a download that stopped half way looks like this: fetch it again",
        ) from error
    arrays = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": _sha256(folder / name)}
        for name in (PIXELS, CURVES)
    }
    content = "".join(str(array["sha256"]) for array in arrays.values())
    facts: dict[str, Any] = {
        "format": FORMAT,
        "name": MAP,
        "credit": CREDIT,
        "scale": "SFD",
        "pixels": len(uniq),
        "repeated_pixels": len(uniq) - len(np.unique(uniq)),
        "nsides": nsides,
        "source": source,
        "arrays": arrays,
        "sha256": sha256(content.encode()),
    }
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _pixels(info: Any) -> tuple[NDArray[np.int64], list[int]]:
    """``4 nside^2 + pixel`` of each row (P,), and the map's nsides. Raises ValueError."""
    nside = info["nside"].astype(np.int64)
    pixel = info["healpix_index"].astype(np.int64)
    if not len(nside):
        raise ValueError("no pixels")
    if ((nside < 1) | (nside & (nside - 1) != 0) | (pixel < 0) | (pixel >= 12 * nside**2)).any():
        raise ValueError("pixels that HEALPix does not have")
    return 4 * nside**2 + pixel, [int(value) for value in np.unique(nside)]


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise InputError("the file cannot be read", found=error, where=path) from error
