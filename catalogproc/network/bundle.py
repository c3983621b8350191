"""A trained model on disk: one folder, self-contained, identified by one hash.

bundle.toml          what the model reads and predicts, the scaling and range of each token,
                     the training data, and predictions for the self-check; the first line is
                     the SHA-256 of all lines below it, and one of these is the SHA-256 of
weights.safetensors  the network's weights
latent.safetensors   optional: the training stars in the latent space and their source_ids
prior.parquet        optional: the training prior (network/training_prior.py); bundle.toml has the
                     SHA-256 of these too

No file is named inside, so that a bundle cannot refer to files outside of its folder.
Inference fits nothing: all that it needs is stored here.
"""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from catalogproc.errors import BundleError, CatalogprocError, ReleaseError, did_you_mean
from catalogproc.io.hashes import file_sha256, sha256
from catalogproc.network.bfloat16_check import PrecisionCheck
from catalogproc.network.shape import Shape
from catalogproc.network.star_tokens import StarTokens
from catalogproc.network.statistics import Domain, ErrorScaling, SelfCheck, Standardisation
from catalogproc.network.training_prior import PRIOR, prior_table
from catalogproc.network.uncertainty_calibration import LATENT, UncertaintyCalibration
from catalogproc.release import DEFAULT as DEFAULT_RELEASE
from catalogproc.release import Release, load_release
from catalogproc.resources import shipped
from catalogproc.vocabulary import Token, Vocabulary

if TYPE_CHECKING:
    import pyarrow as pa

    from catalogproc.network.packed_tokens import PackedTokens
    from catalogproc.network.transformer import Transformer

__all__ = [
    "Bundle",
    "Domain",
    "ErrorScaling",
    "SelfCheck",
    "Standardisation",
    "bundle_file",
    "load_bundle",
    "shipped_bundles",
]

_LOG = logging.getLogger("catalogproc.model")
_INVALID = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)
"""What Python, numpy and torch raise for a bundle.toml with arbitrary content."""
FORMAT = 1
DECLARATION = "bundle.toml"
WEIGHTS = "weights.safetensors"
DEFAULT = "DEFAULT"
ERROR_KEYS = ("error_center", "error_scale", "error_low", "error_high")
"""Fields of a token's row in bundle.toml, in models that read errors."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained model: all that inference needs, and the facts of its training.

    Attributes
    ----------
    requestable
        The tokens that it was trained to predict.
    training
        Facts of the training: data and their fingerprint, seed, credit.
    calibration
        The calibration of its uncertainties.
    error_scaling
        Scaling of the tokens' errors; None if the network does not read them.
    hash
        SHA-256 (hex) of bundle.toml below its first line, which includes the other files' hashes.
    prior_sha256
        SHA-256 (hex) of the training prior; empty without one.
    precision_check
        How far predictions in bfloat16 are from float64's; None where it was not measured.
    """

    name: str
    path: Path
    description: str
    vocabulary: Vocabulary
    standardisation: Standardisation
    domain: Domain
    shape: Shape
    requestable: tuple[str, ...]
    training: Mapping[str, Any]
    self_check: SelfCheck
    calibration: UncertaintyCalibration
    hash: str
    error_scaling: ErrorScaling | None = None
    prior_sha256: str = ""
    precision_check: PrecisionCheck | None = None

    def prior(self) -> pa.Table | None:
        """Return the training prior, rows of the contract prior; None where the bundle has none.

        Raises
        ------
        BundleError
            The file is missing, or was changed.
        """
        if not self.prior_sha256:
            return None
        path = self.path / PRIOR
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BundleError("a file of the bundle cannot be read", found=error) from None
        if (found := sha256(content)) != self.prior_sha256:
            raise _changed(path, self.prior_sha256, found)
        return prior_table(content, path)

    @property
    def reads_errors(self) -> bool:
        """Whether its predictions depend on the errors of the tokens."""
        return self.shape.reads_errors

    def pack(self, tokens: StarTokens) -> PackedTokens:
        """Return the tokens as the network reads them: standardised, absent ones left out.

        Parameters
        ----------
        tokens
            Of N stars.
        """
        from catalogproc.network.packed_tokens import pack

        scales = self.standardisation
        # An infinite input is the caller's error; it makes its own star NaN and no other.
        with np.errstate(over="ignore", invalid="ignore"):
            z = (tokens.values - scales.center) / scales.scale
            if self.error_scaling is None:
                return pack(z)
            return pack(z, self.error_scaling.standardise(tokens.errors))

    @property
    def release(self) -> Release:
        """The Gaia release whose spectra it reads."""
        return self.vocabulary.data_release

    def for_release(self, release: Release | str | Path | None) -> Bundle:
        """Return the model for spectra of a release.

        Parameters
        ----------
        release
            The release, its name, or its TOML file; None is the model's own.

        Raises
        ------
        ReleaseError
            The model reads the coefficients of another release, or there is no such release.
        """
        if release is None:
            return self
        wanted = release if isinstance(release, Release) else load_release(release)
        try:
            return replace(self, vocabulary=self.vocabulary.for_release(wanted))
        except ReleaseError as error:
            error.where = f"the model {self.name}"
            raise ReleaseError.of(error) from None

    def network(self, device: str = "cpu") -> Transformer:
        """Return the network with its weights in float32, ready for inference.

        Parameters
        ----------
        device
            Where it is loaded, as torch names it. On the CPU the weights are the file's
            pages, mapped into memory.

        Raises
        ------
        BundleError
            The weights cannot be read, or do not fit the network.
        """
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from catalogproc.network.transformer import Transformer

        with torch.device("meta"):
            network = Transformer(self.shape)
        where = self.path / WEIGHTS
        try:
            weights = load_file(where, device=device)
            network.load_state_dict(weights, strict=True, assign=True)
        except (SafetensorError, RuntimeError, OSError) as error:
            raise BundleError(
                "the weights do not fit the network", found=error, where=where
            ) from None
        return network.float().requires_grad_(False).eval()


def load_bundle(name_or_path: str | Path) -> Bundle:
    """Read a bundle and check its hashes.

    Parameters
    ----------
    name_or_path
        The name of a shipped bundle, "default" for the default one, or a folder.

    Raises
    ------
    BundleError
        No such bundle, one of another format, or one that was changed after it was written.
    """
    folder = _folder(name_or_path)
    weights = folder / WEIGHTS
    for name in (DECLARATION, WEIGHTS, LATENT, PRIOR):
        bundle_file(folder, name)
    try:
        declaration, digest = _declared(folder / DECLARATION)
        found = file_sha256(weights)
    except OSError as error:
        raise BundleError("a file of the bundle cannot be read", found=error) from None
    if found != declaration.get("weights_sha256"):
        raise _changed(weights, declaration.get("weights_sha256"), found)
    try:
        stored = declaration.get("reliability", {})
        calibration = UncertaintyCalibration.from_dict(stored, folder)
        bundle = _bundle(folder, declaration, digest, calibration)
        _LOG.info("model %s, %s, from %s", bundle.name, bundle.hash[:8], folder)
        return bundle
    except BundleError:
        raise
    except (*_INVALID, CatalogprocError) as error:
        raise BundleError(
            "bundle.toml has an invalid content",
            found=f"{type(error).__name__}: {error}",
            where=folder / DECLARATION,
        ) from None


def bundle_file(folder: Path, name: str) -> Path | None:
    """Return the path of a bundle's file, None if there is none of that name.

    Parameters
    ----------
    folder
        The bundle's folder.
    name
        The file's name.

    Raises
    ------
    BundleError
        It is not a regular file: a link may refer to any file of the machine, whose content
        could then appear in a report.
    """
    path = folder / name
    if not path.exists() and not path.is_symlink():
        return None
    if path.is_symlink() or not path.is_file():
        raise BundleError(
            "a file of the bundle is not a regular file",
            wanted="a regular file in the bundle's folder",
            found="a link" if path.is_symlink() else "not a file",
            where=path,
            advice="copy the file itself into the folder",
        )
    return path


def shipped_bundles() -> tuple[str, ...]:
    """Return the names of the bundles that ship."""
    return tuple(sorted(path.parent.name for path in shipped("model").glob(f"*/{DECLARATION}")))


def _folder(name_or_path: str | Path) -> Path:
    name, path = str(name_or_path), Path(name_or_path)
    if name == "default":
        file = shipped("model") / DEFAULT
        name = file.read_text(encoding="utf-8").strip() if file.is_file() else f"no {file}"
        path = file  # not a folder: the default model must be one that ships
    if name in shipped_bundles():
        return shipped("model") / name
    if (path / DECLARATION).is_file():
        return path
    raise BundleError(
        "no such model",
        wanted=f"a folder with a {DECLARATION}, or one of those that ship: "
        + (", ".join(shipped_bundles()) or "none does"),
        found=name,
        advice=did_you_mean(name, shipped_bundles()),
    )


def _declared(path: Path) -> tuple[dict[str, Any], str]:
    """Return the content of bundle.toml and its hash. Raises BundleError if it was changed."""
    raw = path.read_bytes()
    head, _, body = raw.partition(b"\n")
    digest = sha256(body)
    try:
        declaration = tomllib.loads(body.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError):
        declaration = {"format": FORMAT}
    # Check the format first: another one may have another rule for its hash.
    if declaration.get("format") != FORMAT:
        raise BundleError(
            "a bundle of another format",
            wanted=f"format {FORMAT}",
            found=f"format {declaration.get('format')}",
            where=path,
            advice="use the release of catalogproc that wrote it, or train it again",
        )
    if head + b"\n" != first_line(digest):
        raise _changed(path, head.decode("utf-8", "replace"), f'hash = "{digest}"')
    return declaration, digest


def first_line(digest: str) -> bytes:
    """Return the first line of bundle.toml.

    Parameters
    ----------
    digest
        SHA-256 (hex) of the lines below it.
    """
    return f'hash = "{digest}"\n'.encode()


def _changed(path: Path, wanted: object, found: object) -> BundleError:
    return BundleError(
        f"{path.name} was changed after the bundle was written",
        wanted=wanted,
        found=found,
        where=path,
        advice="restore the bundle from its source",
    )


def _bundle(
    folder: Path, declaration: dict[str, Any], digest: str, calibration: UncertaintyCalibration
) -> Bundle:
    checked = declaration.get("precision_check")
    rows = declaration["token"]
    known = {item.name for item in fields(Token)}
    # Bundles that state neither were trained on DR3 in the basis of its archive.
    release = load_release(DEFAULT_RELEASE)
    if "release" in declaration:
        release = Release.from_dict(declaration["release"], folder / DECLARATION, str(folder))
    vocabulary = Vocabulary.from_rows(
        ({key: value for key, value in row.items() if key in known} for row in rows),
        release,
        declaration.get("basis", "archive"),
    )
    center, scale, low, high = (
        np.array([row[key] for row in rows], dtype=np.float64)
        for key in ("center", "scale", "low", "high")
    )
    shape = Shape.from_dict(declaration["network"])
    return Bundle(
        name=declaration["name"],
        path=folder,
        description=declaration["description"],
        vocabulary=vocabulary,
        standardisation=Standardisation(center, scale),
        domain=Domain(low, high),
        shape=shape,
        requestable=tuple(declaration["requestable"]),
        training=declaration["training"],
        self_check=_self_check(declaration["self_check"], vocabulary),
        calibration=calibration,
        hash=digest,
        error_scaling=_error_scaling(rows) if shape.reads_errors else None,
        prior_sha256=str(declaration.get("prior_sha256", "")),
        precision_check=None if checked is None else PrecisionCheck(**checked),
    )


def _error_scaling(rows: list[dict[str, Any]]) -> ErrorScaling:
    return ErrorScaling(
        *(np.array([row[key] for row in rows], dtype=np.float64) for key in ERROR_KEYS)
    )


def _self_check(check: Mapping[str, Any], vocabulary: Vocabulary) -> SelfCheck:
    values, errors = np.full((2, len(check["star"]), len(vocabulary)), np.nan)
    for row, key in ((values, "inputs"), (errors, "errors")):
        for star, numbers in zip(check["star"], row, strict=True):
            given = star.get(key, {})
            numbers[vocabulary.columns(given)] = list(given.values())
    mean, sigma = (np.array([star[key] for star in check["star"]]) for key in ("mean", "sigma"))
    tokens = StarTokens(values, errors)
    return SelfCheck(tuple(check["labels"]), tokens, mean, sigma, check["tolerance"])
