"""Write a bundle: the parts of a trained model to one folder, atomically.

bundle.toml is written last: a folder is a bundle if, and only if, it has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from catalogproc.errors import BundleError
from catalogproc.io.atomic import write_atomic
from catalogproc.io.hashes import sha256
from catalogproc.network.bfloat16_check import PrecisionCheck
from catalogproc.network.bundle import (
    DECLARATION,
    ERROR_KEYS,
    FORMAT,
    WEIGHTS,
    Bundle,
    first_line,
    load_bundle,
)
from catalogproc.network.packed_tokens import PackedTokens
from catalogproc.network.star_tokens import StarTokens
from catalogproc.network.statistics import Domain, ErrorScaling, SelfCheck, Standardisation
from catalogproc.network.training_prior import PRIOR, prior_bytes
from catalogproc.network.transformer import Transformer
from catalogproc.network.uncertainty_calibration import LATENT, UncertaintyCalibration
from catalogproc.release import Release
from catalogproc.resources import optional_module, shipped
from catalogproc.vocabulary import Token, Vocabulary

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class BundleContent:
    """The parts of a bundle to be written.

    Attributes
    ----------
    training
        Facts of the training: data and their fingerprint, seed, credit.
    check_tokens, check_labels
        A few stars and labels for the self-check: the predictions to store are computed in
        float64 from the weights as stored.
    error_scaling
        Scaling of the tokens' errors, if the network reads them.
    requestable
        Tokens that the network was trained to predict; all if None.
    calibration
        The calibration of its uncertainties, if it was measured.
    tolerance
        Of the self-check, in units of sigma.
    prior
        The training prior, rows of the contract prior.
    precision_check
        How far predictions in bfloat16 are from float64's, if it was measured.
    """

    name: str
    description: str
    network: Transformer
    vocabulary: Vocabulary
    standardisation: Standardisation
    domain: Domain
    training: Mapping[str, Any]
    check_tokens: StarTokens
    check_labels: Sequence[str]
    requestable: Sequence[str] | None = None
    calibration: UncertaintyCalibration | None = None
    error_scaling: ErrorScaling | None = None
    tolerance: float = 0.01
    prior: pa.Table | None = None
    precision_check: PrecisionCheck | None = None

    def __post_init__(self) -> None:
        size, known = len(self.vocabulary), self.vocabulary.names
        parts = (self.standardisation, self.domain, self.error_scaling)
        statistics = [column for part in parts if part for column in vars(part).values()]
        sizes = [self.network.shape.tokens, *map(len, statistics)]
        if {*sizes} != {size} or self.check_tokens.values.shape[1] != size:
            raise BundleError(
                "parts of different vocabularies",
                wanted=f"{size} tokens",
                found=f"{sizes} and check_tokens {self.check_tokens.values.shape}",
            )
        if self.network.shape.reads_errors != (self.error_scaling is not None):
            raise BundleError(
                "the scaling of errors belongs to a network that reads them",
                found=f"reads_errors = {self.network.shape.reads_errors}",
            )
        unknown = sorted({*(self.requestable or ()), *self.check_labels} - set(known))
        if unknown:
            raise BundleError("labels that the vocabulary lacks", found=unknown)
        if not len(self.check_tokens):
            raise BundleError("no star to check")


def write_bundle(
    folder: Path, content: BundleContent, *, dtype: str = "float32", replace: bool = False
) -> Bundle:
    """Write a bundle, completely or not at all, and load it.

    Parameters
    ----------
    folder
        Where it is written. Other files of the folder stay.
    content
        What is written.
    dtype
        How weights are stored: float32, float16 or bfloat16. Arithmetic is in float32.
    replace
        Whether a bundle in the folder may be replaced.

    Raises
    ------
    BundleError
        The folder holds a bundle already.
    """
    from safetensors.torch import save

    tomli_w = optional_module("tomli_w", "train")

    if (folder / DECLARATION).exists() and not replace:
        raise BundleError("the folder holds a bundle already", where=folder)
    stored = {
        key: value.detach().to("cpu", getattr(torch, dtype)).contiguous()
        for key, value in content.network.state_dict().items()
    }
    weights, calibration = save(stored), content.calibration
    prior = None if content.prior is None else prior_bytes(content.prior)
    declaration = _declaration(content, sha256(weights), _self_check(content, stored))
    if prior is not None:
        declaration["prior_sha256"] = sha256(prior)
    body = tomli_w.dumps(declaration).encode()
    digest = sha256(body)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DECLARATION).unlink(missing_ok=True)
    write_atomic(folder / WEIGHTS, weights)
    for name in (LATENT, PRIOR):
        (folder / name).unlink(missing_ok=True)
    if prior is not None:
        write_atomic(folder / PRIOR, prior)
    if calibration is not None and (latent := calibration.arrays()) is not None:
        write_atomic(folder / LATENT, latent)
    _write_matrices(content.vocabulary.data_release, folder)
    write_atomic(folder / DECLARATION, first_line(digest) + body)
    return load_bundle(folder)


def _write_matrices(release: Release, folder: Path) -> None:
    """Write the matrices of a user's release beside the weights, where the bundle looks first."""
    for path in release.matrices:
        if path.parent.resolve() not in (folder.resolve(), shipped("grids").resolve()):
            write_atomic(folder / path.name, path.read_bytes())


def rewrite_bundle(
    bundle: Bundle,
    folder: Path,
    *,
    calibration: UncertaintyCalibration | None = None,
    dtype: str = "float32",
    training: Mapping[str, Any] | None = None,
    prior: pa.Table | None = None,
    precision_check: PrecisionCheck | None = None,
) -> Bundle:
    """Write a copy of a bundle, in its folder or another, with some parts replaced.

    The copy has another hash. Other files of the folder stay. A check of bfloat16 is of one
    calibration and one type of weights: it is not copied.

    Parameters
    ----------
    bundle, folder
        What is copied, and where to.
    calibration, training, prior
        New parts; None keeps the bundle's.
    precision_check
        The check of the copy, None if it was not made.
    dtype
        How weights are stored, as for :func:`write_bundle`.
    """
    content = BundleContent(
        name=bundle.name,
        description=bundle.description,
        network=bundle.network(),
        vocabulary=bundle.vocabulary,
        standardisation=bundle.standardisation,
        domain=bundle.domain,
        training=bundle.training if training is None else training,
        check_tokens=bundle.self_check.tokens,
        check_labels=bundle.self_check.labels,
        requestable=bundle.requestable,
        calibration=bundle.calibration if calibration is None else calibration,
        error_scaling=bundle.error_scaling,
        tolerance=bundle.self_check.tolerance,
        prior=bundle.prior() if prior is None else prior,
        precision_check=precision_check,
    )
    return write_bundle(folder, content, dtype=dtype, replace=True)


def _declaration(content: BundleContent, weights_sha256: str, check: SelfCheck) -> dict[str, Any]:
    """Return what bundle.toml declares."""
    requestable = content.requestable
    declaration = {
        "format": FORMAT,
        "name": content.name,
        "description": content.description,
        "weights_sha256": weights_sha256,
        "requestable": list(content.vocabulary.names if requestable is None else requestable),
        "basis": content.vocabulary.basis,
        "release": content.vocabulary.data_release.to_dict(),
        "network": content.network.shape.to_dict(),
        "training": dict(content.training),
        "self_check": _check_to_dict(check, content),
        "token": _tokens_to_rows(content),
    }
    if content.calibration is not None:
        # The table's name in format 1; another one would change the hash of shipped bundles.
        declaration["reliability"] = content.calibration.to_dict()
    if content.precision_check is not None:
        declaration["precision_check"] = asdict(content.precision_check)
    return declaration


def _tokens_to_rows(content: BundleContent) -> list[dict[str, Any]]:
    """Return one TOML table per token: its definition, scaling and range."""
    numbers = vars(content.standardisation) | vars(content.domain)
    if content.error_scaling is not None:
        numbers |= dict(zip(ERROR_KEYS, vars(content.error_scaling).values(), strict=True))
    defaults = {item.name: item.default for item in fields(Token)}
    return [
        {key: value for key, value in asdict(token).items() if value != defaults[key]}
        | {key: float(column[token.number - 1]) for key, column in numbers.items()}
        for token in content.vocabulary.tokens
    ]


def _check_to_dict(check: SelfCheck, content: BundleContent) -> dict[str, Any]:
    """Return the stars of the self-check by token name, without absent tokens."""
    names, tokens, stars = content.vocabulary.names, check.tokens, []
    rows = zip(tokens.values, tokens.errors, check.mean, check.sigma, strict=True)
    for values, errors, mean, sigma in rows:
        inputs = {names[i]: float(values[i]) for i in np.flatnonzero(~np.isnan(values))}
        star = {"mean": mean.tolist(), "sigma": sigma.tolist(), "inputs": inputs}
        if content.error_scaling is not None:
            known = np.flatnonzero(~np.isnan(values) & ~np.isnan(errors))
            star["errors"] = {names[i]: float(errors[i]) for i in known}
        stars.append(star)
    return {"labels": list(check.labels), "tolerance": check.tolerance, "star": stars}


def _self_check(content: BundleContent, weights: Mapping[str, torch.Tensor]) -> SelfCheck:
    """Predict the stars of the self-check one by one in float64, without the predictor."""
    network = Transformer(content.network.shape).double().eval()
    network.load_state_dict({key: value.double() for key, value in weights.items()})
    columns = content.vocabulary.columns(content.check_labels)
    requests = torch.from_numpy(columns + 1)
    center, scale = content.standardisation.center, content.standardisation.scale
    outputs = []
    with torch.inference_mode():
        for star in range(len(content.check_tokens)):
            outputs.append(network(_double(content, star), requests))
    mean = np.array([output[0][0].numpy() for output in outputs])
    sigma = np.exp(0.5 * np.array([output[1][0].numpy() for output in outputs]))
    return SelfCheck(
        tuple(content.check_labels),
        content.check_tokens,
        mean * scale[columns] + center[columns],
        sigma * scale[columns],
        content.tolerance,
    )


def _double(content: BundleContent, star: int) -> PackedTokens:
    """Return the tokens (1, T) of a star of the self-check, standardised in float64."""
    tokens, scales = content.check_tokens.rows([star]), content.standardisation
    present = tokens.present[0]
    z = (tokens.values - scales.center) / scales.scale
    errors = None
    if content.error_scaling is not None:
        r = content.error_scaling.standardise(tokens.errors)
        errors = torch.from_numpy(r[:, present])
    ids = torch.from_numpy(np.flatnonzero(present)[None] + 1)
    return PackedTokens(ids, torch.from_numpy(z[:, present].astype(np.float64)), errors)
