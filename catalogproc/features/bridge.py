"""The bridge of a release: canonical coefficients by a map learned from stars in both releases.

Where the design matrices of a release are not known, its coefficients c become canonical ones by

    k = (M + sum_t z_t M_t) c

with matrices that bridge_fit.py learned from pairs of spectra of the same stars, and terms t of
colour and brightness where held-out pairs say so. Errors are those of canonical coefficients of
the level that the published errors of the band have, and an error floor relative to the flux, from
held-out pairs.

A star with one band has maps of its own. A star's numbers do not depend on other stars.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import ReleaseError
from catalogproc.features import spectra
from catalogproc.features.canonical_tables import columns
from catalogproc.io.hashes import file_sha256
from catalogproc.release import Release, load_release
from catalogproc.vocabulary import BANDS

Float = NDArray[np.float64]

TERMS = ("colour", "brightness")
"""Quantities on which a map may depend, of a star with both bands."""

CLIP = 3.0
"""A term is not followed farther from the mean of the pairs than so many standard deviations."""


@dataclass(frozen=True)
class BridgeMap:
    """The map of a star with both bands, or with one: from m coefficients to n canonical ones.

    Attributes
    ----------
    matrix
        M (n, m).
    terms
        By name, one of TERMS: M_t (n, m).
    ranges
        By name: mean and standard deviation of the quantity among the pairs.
    template
        Error of each canonical coefficient over the level of the band's published errors (n,).
    floor
        Error of each over the band's first canonical coefficient (n,).
    noise
        By band: smallest scatter of canonical coefficients without signal over their errors. The
        map does not follow noise of which the pairs tell nothing.
    """

    matrix: Float
    terms: Mapping[str, Float]
    ranges: Mapping[str, Float]
    template: Float
    floor: Float
    noise: Mapping[str, float]

    def values(self, coefficients: Float) -> Float:
        """Return canonical coefficients (N, n).

        Parameters
        ----------
        coefficients
            (N, m).
        """
        found = total = spectra.project(coefficients, self.matrix)
        parts = {name: spectra.project(coefficients, own) for name, own in self.terms.items()}
        for _ in range(2 if parts else 0):  # the second time of nearly the right colour
            quantities, sum_of = term_values(total), found
            for name, part in parts.items():
                mean, deviation = self.ranges[name]
                z = np.clip((quantities[name] - mean) / deviation, -CLIP, CLIP)
                sum_of = sum_of + np.nan_to_num(z)[:, None] * part
            total = sum_of
        return total

    def errors(self, name: str, published: Mapping[str, Float], values: Float) -> Float:
        """Return the errors of canonical coefficients (N, n).

        Parameters
        ----------
        name
            "both", "bp" or "rp".
        published
            By band: errors as published (N, m).
        values
            Canonical coefficients (N, n).
        """
        start, found = columns(name).start, np.empty(values.shape)
        for band in BANDS if name == "both" else (name,):
            part = slice(columns(band).start - start, columns(band).stop - start)
            level = error_level(published[band])[:, None]
            flux = np.abs(values[:, [part.start]])
            found[:, part] = np.hypot(level * self.template[part], flux * self.floor[part])
        return found


def load_bridged(bridge: str | Path, release: str | Path | None = None) -> Release:
    """Load a bridge: a release whose coefficients become canonical ones by a learned map.

    Parameters
    ----------
    bridge
        A file of ``bridge fit``.
    release
        What is to be known of the release besides the bridge; by default what that file has.

    Raises
    ------
    ReleaseError
        No bridge; or it is one for spectra of another release.
    """
    found = load_release(bridge)
    if found.bridge is None:
        raise ReleaseError("no bridge", wanted="[bridge], of `catalogproc bridge fit`",
                           found=f"the release {found.name}", where=bridge)  # fmt: skip
    if release is None:
        return found
    own = load_release(release)
    if not own.same_spectra(found):
        raise ReleaseError(
            "the bridge is for spectra of another release",
            wanted=f"{own.title}: {own.spectra_text()}",
            found=f"{found.title}: {found.spectra_text()}", where=bridge,
        )  # fmt: skip
    return replace(own, design=None, bridge=found.bridge, folder=found.folder)


@cache
def read_bridge(release: Release) -> dict[str, BridgeMap]:
    """Read the maps of a release, by kind of star: ``both``, ``bp`` and ``rp``.

    Parameters
    ----------
    release
        It names the file, and the file's hash.

    Raises
    ------
    ReleaseError
        The release has no bridge; its file is missing, has another hash, or is for other numbers
        of coefficients.
    """
    path = release.bridge_file()
    assert release.bridge is not None
    if (found := file_sha256(path)) != release.bridge.sha256:
        raise ReleaseError(
            f"the bridge is not the one that {release.title} names",
            wanted=f"sha256 {release.bridge.sha256}", found=found, where=path,
        )  # fmt: skip
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    maps = {name: _map_of(arrays, name) for name in ("both", *BANDS)}
    for name, one in maps.items():
        wanted = (columns(name).stop - columns(name).start,
                  columns(name, release).stop - columns(name, release).start)  # fmt: skip
        if one.matrix.shape != wanted:
            raise ReleaseError(
                f"the bridge is for other spectra than those of {release.title}",
                wanted=f"a matrix of shape {wanted}", found=one.matrix.shape, where=path,
            )  # fmt: skip
    return maps


def arrays_of(maps: Mapping[str, BridgeMap]) -> dict[str, Float]:
    """Return the arrays of a bridge file.

    Parameters
    ----------
    maps
        As :func:`read_bridge` returns them.
    """
    found: dict[str, Float] = {}
    for name, one in maps.items():
        found[f"{name}_matrix"] = one.matrix
        found[f"{name}_template"], found[f"{name}_floor"] = one.template, one.floor
        found |= {f"{name}_term_{term}": matrix for term, matrix in one.terms.items()}
        found |= {f"{name}_range_{term}": pair for term, pair in one.ranges.items()}
        found |= {f"{name}_noise_{band}": np.asarray(x) for band, x in one.noise.items()}
    return found


def _map_of(arrays: Mapping[str, Float], name: str) -> BridgeMap:
    terms = [term for term in TERMS if f"{name}_term_{term}" in arrays]
    return BridgeMap(
        arrays[f"{name}_matrix"],
        {term: arrays[f"{name}_term_{term}"] for term in terms},
        {term: arrays[f"{name}_range_{term}"] for term in terms},
        arrays[f"{name}_template"],
        arrays[f"{name}_floor"],
        {band: float(arrays[f"{name}_noise_{band}"])
         for band in BANDS if f"{name}_noise_{band}" in arrays},
    )  # fmt: skip


def error_level(errors: Float) -> Float:
    """Return the root mean square of the errors of a band (N,).

    It does not change where coefficients are rotated.

    Parameters
    ----------
    errors
        As published (N, m).
    """
    return np.asarray(np.sqrt(np.mean(np.square(errors, dtype=np.float64), axis=1)))


def term_values(canonical: Float) -> dict[str, Float]:
    """Return the quantities on which a map may depend (N,), NaN where the flux is not positive.

    Parameters
    ----------
    canonical
        Canonical coefficients of both bands (N, n).
    """
    bp, rp = (canonical[:, columns(band).start] for band in BANDS)
    good = (bp > 0) & (rp > 0)
    bp, rp = np.where(good, bp, np.nan), np.where(good, rp, np.nan)
    return {"colour": np.log10(bp / rp), "brightness": np.log10(bp + rp)}
