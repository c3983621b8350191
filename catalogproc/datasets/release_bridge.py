"""A bridge from one Gaia release to another: pairs of spectra, the file of it, its check.

The commands ``bridge fit`` and ``bridge check``.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.datasets.crosswalk import read_crosswalk
from catalogproc.errors import InputError, ReleaseError, plural
from catalogproc.features import canonical
from catalogproc.features.bridge import arrays_of, read_bridge
from catalogproc.features.bridge_fit import Pairs, fit_bridge, residuals
from catalogproc.features.canonical_tables import columns, measured
from catalogproc.features.spectra import matrix
from catalogproc.io.atomic import write_atomic
from catalogproc.io.hashes import sha256
from catalogproc.io.output import check_output_file
from catalogproc.readers.chunks import expand
from catalogproc.readers.release_check import row_faults
from catalogproc.readers.xp import read_spectra
from catalogproc.release import VERSION, Release, load_release
from catalogproc.release_parts import Bridge
from catalogproc.toml_values import toml_text
from catalogproc.vocabulary import BANDS, CANONICAL_RELEASE

Float = NDArray[np.float64]

COLUMNS = tuple(f"{band}_coefficient{what}" for band in BANDS for what in ("s", "_errors"))
FIRST = 30
"""The first coefficients of a band, for which residuals are reported."""


@dataclass(frozen=True)
class PairFiles:
    """Where stars of two releases are found.

    Attributes
    ----------
    source
        Spectra of the release that is to be read: files, folders, globs.
    target
        Spectra of the same stars in the release that canonical coefficients are known of.
    crosswalk
        Table of identifiers in both (dr3_neighbourhood); None where they are the same.
    release
        The release of ``source``.
    """

    source: tuple[str | Path, ...]
    target: tuple[str | Path, ...]
    crosswalk: Path | None
    release: Release


@dataclass(frozen=True)
class BridgeReport:
    """What a fit or a check found, line by line, and the file of the bridge."""

    path: Path
    found: tuple[str, ...]
    facts: dict[str, Any]

    def lines(self) -> list[str]:
        """Return it for the user."""
        return [*self.found, str(self.path)]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {"file": str(self.path), "found": list(self.found)} | self.facts


def fit(files: PairFiles, output: Path) -> BridgeReport:
    """Fit a bridge, and write it: a release file with ``[bridge]``, and its matrices beside it.

    Parameters
    ----------
    files
        Stars of both releases.
    output
        The TOML file; the matrices are named like it, with ``.npz``.

    Raises
    ------
    ReleaseError
        Too few pairs; spectra of other lengths than the release's.
    InputError
        A file cannot be read, or the crosswalk has no such columns.
    """
    if output.suffix != ".toml":
        raise ReleaseError("a bridge is a TOML file", wanted="FILE.toml", found=output.name)
    check_output_file(output)
    pairs, counted = read_pairs(files)
    made = fit_bridge(pairs)
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays_of(made.maps))
    name = f"{output.stem}.npz"
    bridge = Bridge(
        name,
        sha256(packed.getvalue()),
        len(pairs),
        CANONICAL_RELEASE,
        round(made.residuals["both"], 3),
    )
    stated = files.release.to_dict() | {"version": VERSION, "bridge": asdict(bridge)}
    stated.pop("design", None)  # the bridge is in its place
    Release.from_dict(stated, output)
    write_atomic(output.with_suffix(".npz"), packed.getvalue())
    write_atomic(output, toml_text(stated).encode())
    read_bridge(load_release(output))
    return BridgeReport(output, (*counted, *made.lines), {"bridge": asdict(bridge)})


def check(bridge: Path, files: PairFiles) -> BridgeReport:
    """Compare a bridge with pairs of stars: residuals over their errors.

    Parameters
    ----------
    bridge
        A file of :func:`fit`.
    files
        Stars of both releases, not those of the fit.

    Raises
    ------
    ReleaseError, InputError
        As of :func:`fit`; or there is no pair.
    """
    release = load_release(bridge)
    pairs, counted = read_pairs(files)
    if not len(pairs):
        raise ReleaseError("no star is in both releases", wanted="one pair or more")
    found = residuals(read_bridge(release), pairs)
    lines, facts = [], {}
    for band in BANDS:
        z = found[band][:, :FIRST][:, measured()[columns(band)][:FIRST]]
        facts[band] = {
            "rms": float(np.sqrt(np.mean(z**2))),
            "bias": float(np.abs(z.mean(axis=0)).max()),
            "outliers": float(np.mean(np.abs(z) > 5)),
        }
        lines.append(
            f"{band.upper()}, first {FIRST}: residual over error {facts[band]['rms']:.2f} (1 is "
            f"expected), largest mean {facts[band]['bias']:.2f}, beyond 5: "
            f"{facts[band]['outliers']:.2%}"
        )
    return BridgeReport(bridge, (*counted, *lines), {"pairs": len(pairs), "residuals": facts})


def read_pairs(files: PairFiles) -> tuple[Pairs, list[str]]:
    """Read the stars that have both bands in both releases.

    Parameters
    ----------
    files
        Where they are.

    Returns
    -------
    pairs, lines
        The pairs, and how many rows there were, for the user.
    """
    target_release = load_release(CANONICAL_RELEASE)
    source, target = _spectra(files.source, files.release), _spectra(files.target, target_release)
    wanted = target["source_id"]
    if files.crosswalk is not None:
        wanted = pa.array(read_crosswalk(files.crosswalk).to_newer(wanted.to_numpy()))
    at = pc.index_in(wanted, source["source_id"].combine_chunks())
    found = pc.is_valid(at)
    target = target.filter(found)
    source = source.take(pc.drop_null(at))
    values = canonical.from_coefficients(_arrays(target, "s"), _arrays(target, "_errors"))
    pairs = Pairs(_arrays(source, "s"), _arrays(source, "_errors"), values.values, values.errors)
    good = np.all(
        [np.isfinite(x).all(axis=1) for part in vars(pairs).values() for x in part.values()], axis=0
    )
    good &= np.all([pairs.values[band][:, 0] > 0 for band in BANDS], axis=0)
    lines = [
        f"{files.release.title}: {plural(len(source), 'star')} of both releases, "
        f"{int(good.sum()):,} with both bands in both"
    ]
    return pairs.rows(good), lines


def _spectra(inputs: Sequence[str | Path], release: Release) -> pa.Table:
    """Return the spectra with both bands, one row a star."""
    batches = list(_batches(inputs, release))
    if not batches:
        raise InputError(f"no spectra of {release.title} with both bands", where=str(inputs[0]))
    table = pa.concat_tables(batches).combine_chunks()
    _, first = np.unique(table["source_id"].to_numpy(), return_index=True)
    return table.take(pa.array(np.sort(first)))


def _batches(inputs: Sequence[str | Path], release: Release) -> Iterator[pa.Table]:
    for path in expand(inputs):
        for batch in read_spectra(path, release=release):
            if faults := row_faults(batch, release):
                row, (reason, detail) = next(iter(faults.items()))
                raise ReleaseError(
                    f"the spectra are not those of {release.title}",
                    wanted=release.spectra_text(), found=f"{detail} ({reason}, row {row})",
                    where=path, advice="name their release: --release FILE",
                )  # fmt: skip
            table = pa.Table.from_batches([batch])
            both = pc.is_valid(table["source_id"])
            for name in COLUMNS:
                filled = pc.greater(pc.fill_null(pc.list_value_length(table[name]), 0), 0)
                both = pc.and_(both, filled)
            yield table.select(["source_id", *COLUMNS]).filter(both)


def _arrays(table: pa.Table, what: str) -> dict[str, Float]:
    found = {}
    for band in BANDS:
        column = table[f"{band}_coefficient{what}"].combine_chunks()
        count = int(pc.max(pc.list_value_length(column)).as_py() or 0)
        found[band] = np.asarray(matrix(column, count), dtype=np.float64)
    return found
