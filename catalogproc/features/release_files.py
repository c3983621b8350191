"""Write a release file with design matrices: the command ``release add``."""

from __future__ import annotations

import io
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import ReleaseError
from catalogproc.features.canonical_tables import check_wavelengths, operators
from catalogproc.features.gaiaxpy_files import OTHERS, read_files
from catalogproc.io.atomic import write_atomic
from catalogproc.io.hashes import sha256
from catalogproc.io.output import check_output_file
from catalogproc.release import VERSION, Release, load_release, shipped_releases
from catalogproc.toml_values import merged, toml_text
from catalogproc.vocabulary import BANDS

Float = NDArray[np.float64]


@dataclass(frozen=True)
class AddedRelease:
    """A release file that was written.

    Attributes
    ----------
    release
        The release, read again from the file.
    path
        The file.
    arrays
        Names of the arrays of its design file.
    """

    release: Release
    path: Path
    arrays: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return file, release and what is not known, as JSON can hold it."""
        return {
            "file": str(self.path),
            "release": self.release.to_dict(),
            "unknown": self.release.unknown_lines(),
            "missing_tables": [name for name in OTHERS if name not in self.arrays],
        }

    def lines(self) -> list[str]:
        """Return what was written, and what the release does not state, for the user."""
        design = self.release.design_file()
        lines = [
            f"{self.release.title}: {self.release.spectra_text()}, with design matrices",
            f"{self.path} and {design.name}",
        ]
        missing = {
            "pass-bands (XpFilter_<system>_<models>.xml)": "passband_bp",
            "factors on errors (…-correction-factors.csv)": "error_factor_bp",
        }
        lines += [f"not given: {words}" for words, name in missing.items()
                  if name not in self.arrays]  # fmt: skip
        lines += [f"not known: {line}: {what}" for line, what in
                  self.release.unknown_lines().items()]  # fmt: skip
        return lines


def add_release(
    files: Sequence[Path], output: Path, like: str = "dr4", name: str | None = None
) -> AddedRelease:
    """Write a release file and, beside it, its design matrices.

    Parameters
    ----------
    files
        Files of GaiaXPy's configuration (gaiaxpy_files.py).
    output
        The TOML file; the design file is named like it, with ``.npz``. Both may exist only if
        they are written as they are.
    like
        The release that the file begins from: the name of one that ships, or a TOML file, all
        lines of which are kept.
    name
        Name of the release; by default that of ``like``.

    Raises
    ------
    ReleaseError
        A file cannot be read or lacks matrices; the matrices are for other numbers of
        coefficients than ``like`` states, or for other wavelengths than those of canonical
        coefficients.
    Refusal
        The output cannot be written.
    CatalogprocError
        The output exists with another content.
    """
    if output.suffix != ".toml":
        raise ReleaseError("a release is a TOML file", wanted="FILE.toml", found=output.name)
    base, arrays = load_release(like), read_files(files)
    _check_counts(base, arrays)
    check_wavelengths(arrays["wavelengths"], base.title)
    for path in (output, output.with_suffix(".npz")):
        check_output_file(path)
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    design = {"file": f"{output.stem}.npz", "sha256": sha256(packed.getvalue())}
    begin: dict[str, Any] = {"version": VERSION, "name": base.name, "like": like}
    if like not in shipped_releases():
        begin = tomllib.loads(Path(like).read_text(encoding="utf-8"))
    stated = merged(begin, {"design": design} | ({"name": name} if name else {}))
    # What is checked is what a reader of the file will find.
    shown = {key: value for key, value in stated.items() if key != "like"}
    Release.from_dict(merged(base.to_dict(), shown), output)
    _write(output.with_suffix(".npz"), packed.getvalue())
    _write(output, toml_text(stated).encode())
    release = load_release(output)
    operators(release)
    return AddedRelease(release, output, tuple(arrays))


def _check_counts(base: Release, arrays: Mapping[str, Float]) -> None:
    found = {band: arrays[f"design_{band}"].shape[1] for band in BANDS}
    if any(found[band] != base.coefficients(band) for band in BANDS):
        raise ReleaseError(
            f"the design matrices are for other spectra than those of {base.title}",
            wanted=base.spectra_text(),
            found=", ".join(f"{count} {band.upper()}" for band, count in found.items())
            + " coefficients",
            advice="give the files of that release's models, or another --like NAME|FILE",
        )


def _write(path: Path, content: bytes) -> None:
    if not (path.is_file() and path.read_bytes() == content):
        write_atomic(path, content, overwrite=False)
