"""ln E(B-V) from a three-dimensional dust map, by position and parallax.

The map is Combined19 (Bovy et al. 2016; Green et al. 2019; Marshall et al. 2006; Drimmel et al.
2003) as mwdust distributes it, staged once by combined19.py and mapped into memory: all processes
of a machine share one copy, and only the pixels that are needed are read from the disk.

E(B-V) is on the SFD scale (see extinction.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalogproc.errors import InputError, Refusal, plural
from catalogproc.features import astrometry, extinction

if TYPE_CHECKING:
    from catalogproc.features.tokens import Tokens
    from catalogproc.job import Job
    from catalogproc.vocabulary import Vocabulary

Float = NDArray[np.float64]

FOLDER_VARIABLE = "CATALOGPROC_DUST"
"""Environment variable that names the folder of staged maps."""

MAP = "combined19"
FORMAT = 1
FACTS, PIXELS, CURVES = "map.json", "pixels.npy", "ebv.npy"

FIRST, STEP, POINTS = 4.0, 0.125, 120
"""The distance moduli at which the map is given: 4, 4.125, ... 18.875 (63 pc to 59.6 kpc)."""

FAR_AWAY = 99.0
"""Distance in kpc of a star whose good parallax is not positive (Leung & Bovy 2024)."""

DRAWS = 1000
MAD_TO_SIGMA = 1.482602218505602

_BLOCK = 512  # stars at a time: their draws stay in the processor's cache


@dataclass(frozen=True, eq=False)
class DustMap:
    """A staged map.

    Attributes
    ----------
    folder
        Where it is stored.
    facts
        Its metadata: source, sizes, checksums.
    uniq
        Its HEALPix pixels (P,), nested, in galactic coordinates, as ``4 nside^2 + pixel``,
        ascending.
    curves
        E(B-V) in mag on the SFD scale (P, 120) at the distance moduli 4, 4.125, ... 18.875.
    """

    folder: Path
    facts: dict[str, Any]
    uniq: NDArray[np.int64]
    curves: NDArray[np.floating]

    def __reduce__(self) -> tuple[Callable[[Path], DustMap], tuple[Path]]:
        # Pickled as a path: a gigabyte is too much for a task.
        return open_dust_map, (self.folder,)

    def __len__(self) -> int:
        return len(self.uniq)

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the map's content, independent of the source file."""
        return str(self.facts["sha256"])

    def lines(self) -> list[str]:
        """Return what the map is and where it is stored, as lines of text."""
        source = self.facts["source"]
        return [
            f"{self.facts['name']}: {plural(len(self), 'pixel')}, {POINTS} distances, SFD scale",
            f"staged in {self.folder} from {source['file']}, SHA-256 {source['sha256']}",
            f"credit: {self.facts['credit']}",
        ]

    @cached_property
    def orders(self) -> tuple[int, ...]:
        """The HEALPix orders of its pixels, finest first: the order of the search."""
        return tuple(sorted(int(nside).bit_length() - 1 for nside in self.facts["nsides"])[::-1])

    def rows(self, l: ArrayLike, b: ArrayLike) -> NDArray[np.int64]:  # noqa: E741
        """Return the map's rows (N,); -1 outside of the map.

        Parameters
        ----------
        l, b
            Galactic positions (N,), degrees.
        """
        finest = astrometry.healpix(l, b, self.orders[0])
        row = np.full(finest.shape, -1, dtype=np.int64)
        open_ = np.flatnonzero(finest >= 0)
        for order in self.orders:
            key = (finest[open_] >> 2 * (self.orders[0] - order)) + (4 << 2 * order)
            at = np.minimum(np.searchsorted(self.uniq, key), len(self.uniq) - 1)
            found = self.uniq[at] == key
            row[open_[found]] = at[found]
            open_ = open_[~found]
        return row

    def ebv(self, l: ArrayLike, b: ArrayLike, distance: ArrayLike) -> Float:  # noqa: E741
        """Return E(B-V) in mag, on the SFD scale, in the shape of ``distance``.

        Linear in the distance modulus, as mwdust is. Nearer than 63 pc and farther than 59.6 kpc
        it is constant, where mwdust extrapolates the last segment, to negative values for near
        stars. NaN where a position or distance is unknown, a distance is not positive, or the
        map has no pixel.

        Parameters
        ----------
        l, b
            Galactic positions (N,), degrees.
        distance
            Distances (N,), or (N, K) for K distances along each line of sight, kpc.
        """
        d = np.asarray(distance, dtype=np.float64)
        row = self.rows(l, b)
        curve = np.asarray(self.curves[np.maximum(row, 0)], dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            x = (5.0 * np.log10(np.where(d > 0, d, np.nan)) + 10.0 - FIRST) / STEP
        x = np.clip(x.reshape(len(row), -1), 0.0, POINTS - 1.0)
        low = np.minimum(np.nan_to_num(x), POINTS - 2.0).astype(np.intp)
        near, far = (np.take_along_axis(curve, low + step, axis=1) for step in (0, 1))
        value = near * (1.0 - (x - low)) + far * (x - low)  # exact at both ends
        value[row < 0] = np.nan
        return value.reshape(d.shape)

    def true_ebv(self, l: ArrayLike, b: ArrayLike, distance: ArrayLike) -> Float:  # noqa: E741
        """Return the true E(B-V) in mag: 0.884 of :meth:`ebv` (Schlafly & Finkbeiner 2011).

        Parameters
        ----------
        l, b, distance
            As for :meth:`ebv`.
        """
        return extinction.true_ebv(self.ebv(l, b, distance))


def ln_ebv_by_parallax(
    dust_map: DustMap,
    l: ArrayLike,  # noqa: E741
    b: ArrayLike,
    parallax: ArrayLike,
    error: ArrayLike,
    draws: int = DRAWS,
) -> tuple[Float, Float]:
    """Return ln E(B-V) on the SFD scale, and its error (N,), by the parallax.

    Parameters
    ----------
    dust_map
        The map.
    l, b
        Galactic positions (N,), degrees.
    parallax, error
        Corrected parallax and its error (N,), mas; NaN where not usable
        (``astrometry.parallax_usable``).
    draws
        Distances per star.

    Notes
    -----
    The rule of Leung & Bovy (2024): distances 1/parallax over the parallax's Gaussian, without
    those of negative parallaxes; 99 kpc for a star whose parallax is not positive; more than 10
    mag is not a measurement, no dust is e^-7; the median of ln E(B-V), and 1.4826 times the median
    absolute deviation as its error. The Gaussian is represented by the middles of ``draws`` equal
    shares of it: the limit of as many random draws without their noise, and independent of the
    other stars. NaN where the position or the parallax is unknown, or outside of the map.
    """
    z = _normal_quantiles(draws)
    l, b, parallax, error = (  # noqa: E741
        np.asarray(item, dtype=np.float64) for item in (l, b, parallax, error)
    )
    value, sigma = np.full((2, len(parallax)), np.nan)
    known = np.flatnonzero(np.isfinite(parallax) & np.isfinite(error))
    for rows in (known[start : start + _BLOCK] for start in range(0, len(known), _BLOCK)):
        sample = parallax[rows, None] + error[rows, None] * z  # (n, draws)
        with np.errstate(divide="ignore"):
            distance = np.where(sample > 0, 1.0 / sample, np.nan)
        distance[parallax[rows] <= 0] = FAR_AWAY
        ln = extinction.ln_ebv(dust_map.ebv(l[rows], b[rows], distance))
        value[rows] = _median(ln)
        sigma[rows] = MAD_TO_SIGMA * _median(np.abs(ln - value[rows, None]))
    return value, sigma


def reddened(found: Tokens, dust_map: DustMap, vocabulary: Vocabulary, job: Job) -> Tokens:
    """Return the same stars with ln E(B-V) of the map as a token, where none was given.

    Only if ``logebv`` is an input of the job, and only for stars with a position and a usable
    parallax; see :func:`ln_ebv_by_parallax`.

    Parameters
    ----------
    found
        Tokens of N stars.
    dust_map
        The map.
    vocabulary
        The model's tokens.
    job
        Its ``inputs`` decide.
    """
    if "logebv" not in job.inputs or "logebv" not in vocabulary:
        return found
    column = vocabulary.column("logebv")
    rows = np.flatnonzero(np.isnan(found.values[:, column]) & found.parallax_usable)
    values, errors = found.values.copy(), found.errors.copy()
    values[rows, column], errors[rows, column] = ln_ebv_by_parallax(
        dust_map, found.l[rows], found.b[rows], found.parallax_zpc[rows], found.e_parallax[rows]
    )
    by_parallax = found.by_parallax.copy()
    by_parallax[rows, column] = np.isfinite(values[rows, column])
    return replace(found, values=values, errors=errors, by_parallax=by_parallax)


def map_folder(folder: Path | str | None = None) -> Path:
    """Return the folder of staged maps.

    Parameters
    ----------
    folder
        The folder; by default $CATALOGPROC_DUST, else ~/.catalogproc/dust.
    """
    if folder is not None:
        return Path(folder)
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named else Path.home() / ".catalogproc" / "dust"


def open_dust_map(folder: Path | str | None = None) -> DustMap:
    """Open a staged map.

    Parameters
    ----------
    folder
        See :func:`map_folder`.

    Raises
    ------
    Refusal
        There is none.
    InputError
        It is damaged.
    """
    place = map_folder(folder)
    place = place if (place / FACTS).is_file() else place / MAP
    if not (place / FACTS).is_file():
        raise Refusal(
            "there is no dust map",
            wanted=f"{MAP}, staged in {place.parent}",
            found="nothing",
            advice="catalogproc dust, on a machine with a network, fetches and stages it; "
            "elsewhere fetch https://zenodo.org/record/3566060/files/combine19.h5 and give "
            f"catalogproc dust --from combine19.h5; another folder is named by {FOLDER_VARIABLE}",
        )
    # Called once per batch: files are opened again only if they have changed.
    return _opened(place, (place / FACTS).stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _opened(place: Path, _changed: int) -> DustMap:
    try:
        facts = json.loads((place / FACTS).read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise ValueError(f"format {facts['format']}, not {FORMAT}")
        uniq, curves = (np.load(place / name, mmap_mode="r") for name in (PIXELS, CURVES))
        for name, recorded in facts["arrays"].items():
            found = (place / name).stat().st_size
            if found != recorded["bytes"]:
                raise ValueError(f"{name} has {found} bytes, not {recorded['bytes']}")
        if curves.shape != (len(uniq), POINTS):
            raise ValueError(f"{CURVES} is of shape {curves.shape}")
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise InputError(
            "the staged dust map is damaged",
            found=error,
            where=place,
            advice="remove that folder and give catalogproc dust again",
        ) from error
    return DustMap(place, facts, uniq, curves)


@lru_cache(maxsize=4)
def _normal_quantiles(count: int) -> Float:
    """Return the middles of ``count`` equal shares of the standard normal, ascending."""
    from scipy.special import ndtri

    z: Float = ndtri((np.arange(count) + 0.5) / count)
    z.flags.writeable = False
    return z


def _median(values: Float) -> Float:
    """Return the median of each row of (N, K) without its NaN; NaN if there are only NaN."""
    ordered = np.sort(values, axis=1)  # NaN last
    count = np.isfinite(values).sum(axis=1)
    middle = [np.maximum(at, 0)[:, None] for at in ((count - 1) // 2, count // 2)]
    low, high = (np.take_along_axis(ordered, at, axis=1)[:, 0] for at in middle)
    return np.where(count > 0, 0.5 * (low + high), np.nan)
