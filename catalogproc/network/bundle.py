"""A trained model on disk: one folder, closed, under one hash.

bundle.toml     what the model reads and answers, how each token is scaled, where it was
                trained, on what, and answers that it must give; its first line is the
                SHA-256 of all lines below it, and one of these is the SHA-256 of the
weights.safetensors
latent.safetensors  where it is known, what training stars look like inside the network; its
                SHA-256 stands in bundle.toml too

No file is named inside, so that a bundle cannot point outside its folder. Inference
never fits anything: all that it needs is here.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import BundleError, CatalogprocError
from catalogproc.io.atomic import write_whole
from catalogproc.network.statistics import Domain, SelfCheck, Standardisation
from catalogproc.network.uncertainty_calibration import LATENT, Reliability
from catalogproc.resources import shipped
from catalogproc.vocabulary import Token, Vocabulary

if TYPE_CHECKING:
    from catalogproc.network.transformer import Shape, Transformer

__all__ = [
    "Bundle",
    "Domain",
    "SelfCheck",
    "Standardisation",
    "load_bundle",
    "rewritten",
    "shipped_bundles",
    "write_bundle",
]

_WRONG = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)
"""What a declaration that holds anything makes Python, numpy and torch raise."""
FORMAT = 1
DECLARATION = "bundle.toml"
WEIGHTS = "weights.safetensors"
DEFAULT = "DEFAULT"

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained model: all that inference needs, and what it was made of.

    ``requestable`` are the tokens that it was trained to answer. ``training`` says on
    what it was trained: data and their fingerprint, seed, credit. ``hash`` is the SHA-256
    (hex) of the whole.
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
    reliability: Reliability
    hash: str

    def network(self, device: str = "cpu") -> Transformer:
        """The network with its weights in float32 on a device, ready for inference.

        Built without memory of its own: on the CPU its weights are the file's pages.
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
    """The bundle that ships under a name, the default one for "default", or one in a folder.

    Raises
    ------
    BundleError
        No such bundle, one of another format, or one in which a byte was changed.
    """
    folder = _folder(name_or_path)
    weights = folder / WEIGHTS
    for name in (DECLARATION, WEIGHTS, LATENT):
        inside(folder, name)
    try:
        declaration, digest = _declared(folder / DECLARATION)
        with weights.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError("a file of the bundle cannot be read", found=error) from None
    if found != declaration.get("weights_sha256"):
        raise _changed(weights, declaration.get("weights_sha256"), found)
    try:
        reliability = Reliability.from_dict(declaration.get("reliability", {}), folder)
        return _bundle(folder, declaration, digest, reliability)
    except BundleError:
        raise
    except (*_WRONG, CatalogprocError) as error:
        raise BundleError(
            "a bundle that was written wrongly",
            found=f"{type(error).__name__}: {error}",
            where=folder / DECLARATION,
        ) from None


def write_bundle(
    folder: Path,
    *,
    name: str,
    description: str,
    network: Transformer,
    vocabulary: Vocabulary,
    standardisation: Standardisation,
    domain: Domain,
    training: Mapping[str, Any],
    check_values: Floats,
    check_labels: Sequence[str],
    requestable: Sequence[str] | None = None,
    reliability: Reliability | None = None,
    tolerance: float = 0.01,
    dtype: str = "float32",
    replace: bool = False,
) -> Bundle:
    """Write a bundle, whole or not at all: a folder is one if, and only if, it has bundle.toml.

    Parameters
    ----------
    check_values, check_labels
        A few stars (R, V) in the tokens' units, NaN where absent, and labels; the answers
        to store are computed here, in float64 and from the weights as written.
    requestable
        Tokens that the network was trained to answer; all where not given.
    reliability
        What is known of how far its answers can be trusted.
    dtype
        How weights are stored: float32, float16 or bfloat16. Arithmetic is in float32.
    replace
        Whether a bundle that already is in the folder may go. Other files stay.

    Raises
    ------
    BundleError
        The parts do not fit each other, or the folder holds a bundle already.
    """
    import tomli_w
    import torch
    from safetensors.torch import save

    if (folder / DECLARATION).exists() and not replace:
        raise BundleError("the folder holds a bundle already", where=folder)
    size, known = len(vocabulary), vocabulary.names
    statistics = [*vars(standardisation).values(), *vars(domain).values()]
    sizes = [network.shape.tokens, *map(len, statistics)]
    if {*sizes} != {size} or np.shape(check_values)[1:] != (size,):
        found = f"{sizes} and check_values {np.shape(check_values)}"
        raise BundleError("parts of different vocabularies", wanted=f"{size} tokens", found=found)
    requestable = known if requestable is None else tuple(requestable)
    strangers = sorted({*requestable, *check_labels} - set(known))
    if strangers or not len(check_values):
        raise BundleError("labels that the vocabulary lacks, or no star to check", found=strangers)
    stored = {
        key: value.detach().to("cpu", getattr(torch, dtype)).contiguous()
        for key, value in network.state_dict().items()
    }
    weights = save(stored)
    columns = vocabulary.columns(check_labels)
    answers = _reference(network.shape, stored, standardisation, check_values, columns)
    check = SelfCheck(tuple(check_labels), check_values, *answers, tolerance)
    declaration = {
        "format": FORMAT,
        "name": name,
        "description": description,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "requestable": list(requestable),
        "network": network.shape.to_dict(),
        "training": dict(training),
        "self_check": _check_to_dict(check, vocabulary),
        "token": _tokens_to_rows(vocabulary, standardisation, domain),
    }
    if reliability is not None:
        declaration["reliability"] = reliability.to_dict()
    body = tomli_w.dumps(declaration).encode()
    digest = hashlib.sha256(body).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DECLARATION).unlink(missing_ok=True)
    write_whole(folder / WEIGHTS, weights)
    (folder / LATENT).unlink(missing_ok=True)
    if reliability is not None and (latent := reliability.arrays()) is not None:
        write_whole(folder / LATENT, latent)
    write_whole(folder / DECLARATION, _first_line(digest) + body)
    return load_bundle(folder)


def rewritten(
    bundle: Bundle,
    folder: Path,
    *,
    reliability: Reliability | None = None,
    dtype: str = "float32",
    training: Mapping[str, Any] | None = None,
) -> Bundle:
    """Write a bundle anew, in its folder or another: with what was found of its answers, with its
    weights in another type, with more said of its training.

    It is another bundle then, with a hash of its own. Other files of the folder stay.
    """
    return write_bundle(
        folder,
        name=bundle.name,
        description=bundle.description,
        network=bundle.network(),
        vocabulary=bundle.vocabulary,
        standardisation=bundle.standardisation,
        domain=bundle.domain,
        training=bundle.training if training is None else training,
        check_values=bundle.self_check.values,
        check_labels=bundle.self_check.labels,
        requestable=bundle.requestable,
        reliability=bundle.reliability if reliability is None else reliability,
        tolerance=bundle.self_check.tolerance,
        dtype=dtype,
        replace=True,
    )


def inside(folder: Path, name: str) -> Path | None:
    """A file of a bundle, None where it has none of that name.

    Raises BundleError where it is no regular file of the folder: a link may lead anywhere, and
    what is read could end up in a report.
    """
    path = folder / name
    if not path.exists() and not path.is_symlink():
        return None
    if path.is_symlink() or not path.is_file():
        raise BundleError(
            "a file of a bundle that lies elsewhere",
            wanted="a regular file in the bundle's folder",
            found="a link" if path.is_symlink() else "something that is no file",
            where=path,
            todo="copy the file itself into the folder",
        )
    return path


def shipped_bundles() -> tuple[str, ...]:
    """The names of the bundles that ship."""
    return tuple(sorted(path.parent.name for path in shipped("model").glob(f"*/{DECLARATION}")))


def _folder(name_or_path: str | Path) -> Path:
    name, path = str(name_or_path), Path(name_or_path)
    if name == "default":
        file = shipped("model") / DEFAULT
        name = file.read_text(encoding="utf-8").strip() if file.is_file() else f"no {file}"
        path = file  # never a folder: the default model is one that ships
    if name in shipped_bundles():
        return shipped("model") / name
    if (path / DECLARATION).is_file():
        return path
    raise BundleError(
        "no such model",
        wanted=f"a folder with a {DECLARATION}, or one of those that ship: "
        + (", ".join(shipped_bundles()) or "none does"),
        found=name,
    )


def _declared(path: Path) -> tuple[dict[str, Any], str]:
    """What bundle.toml declares, and its hash, if not a byte of it was changed."""
    raw = path.read_bytes()
    head, _, body = raw.partition(b"\n")
    digest = hashlib.sha256(body).hexdigest()
    try:
        declaration = tomllib.loads(body.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError):
        declaration = {"format": FORMAT}
    # First the format: another one may well have another rule for its hash.
    if declaration.get("format") != FORMAT:
        raise BundleError(
            "a bundle of another format",
            wanted=f"format {FORMAT}",
            found=f"format {declaration.get('format')}",
            where=path,
            todo="use the release of catalogproc that wrote it, or train it again",
        )
    if head + b"\n" != _first_line(digest):
        raise _changed(path, head.decode("utf-8", "replace"), f'hash = "{digest}"')
    return declaration, digest


def _first_line(digest: str) -> bytes:
    return f'hash = "{digest}"\n'.encode()


def _changed(path: Path, wanted: object, found: object) -> BundleError:
    return BundleError(
        f"{path.name} was changed after the bundle was written",
        wanted=wanted,
        found=found,
        where=path,
        todo="restore the bundle from its source",
    )


def _bundle(
    folder: Path, declaration: dict[str, Any], digest: str, reliability: Reliability
) -> Bundle:
    from catalogproc.network.transformer import Shape

    rows = declaration["token"]
    known = {item.name for item in fields(Token)}
    vocabulary = Vocabulary.from_rows(
        {key: value for key, value in row.items() if key in known} for row in rows
    )
    center, scale, low, high = (
        np.array([row[key] for row in rows], dtype=np.float64)
        for key in ("center", "scale", "low", "high")
    )
    check = declaration["self_check"]
    values = np.full((len(check["star"]), len(rows)), np.nan)
    for row, star in zip(values, check["star"], strict=True):
        row[vocabulary.columns(star["inputs"])] = list(star["inputs"].values())
    mean, sigma = (np.array([star[key] for star in check["star"]]) for key in ("mean", "sigma"))
    return Bundle(
        name=declaration["name"],
        path=folder,
        description=declaration["description"],
        vocabulary=vocabulary,
        standardisation=Standardisation(center, scale),
        domain=Domain(low, high),
        shape=Shape.from_dict(declaration["network"]),
        requestable=tuple(declaration["requestable"]),
        training=declaration["training"],
        self_check=SelfCheck(tuple(check["labels"]), values, mean, sigma, check["tolerance"]),
        reliability=reliability,
        hash=digest,
    )


def _tokens_to_rows(
    vocabulary: Vocabulary, standardisation: Standardisation, domain: Domain
) -> list[dict[str, Any]]:
    """One TOML table a token: what it is, how it is scaled, where it was seen."""
    numbers = vars(standardisation) | vars(domain)
    defaults = {item.name: item.default for item in fields(Token)}
    return [
        {key: value for key, value in asdict(token).items() if value != defaults[key]}
        | {key: float(column[token.number - 1]) for key, column in numbers.items()}
        for token in vocabulary.tokens
    ]


def _check_to_dict(check: SelfCheck, vocabulary: Vocabulary) -> dict[str, Any]:
    """Stars by token name; a token that is not there is absent."""
    stars = []
    for values, mean, sigma in zip(check.values, check.mean, check.sigma, strict=True):
        given = {
            name: float(value)
            for name, value in zip(vocabulary.names, values, strict=True)
            if not np.isnan(value)
        }
        stars.append({"mean": mean.tolist(), "sigma": sigma.tolist(), "inputs": given})
    return {"labels": list(check.labels), "tolerance": check.tolerance, "star": stars}


def _reference(
    shape: Shape,
    weights: Mapping[str, Any],
    standardisation: Standardisation,
    values: Floats,
    columns: NDArray[np.int64],
) -> tuple[Floats, Floats]:
    """Mean and sigma (R, K), star by star in float64: nothing in common with the predictor."""
    import torch

    from catalogproc.network.transformer import Transformer

    network = Transformer(shape).double().eval()
    network.load_state_dict({key: value.double() for key, value in weights.items()})
    requests = torch.from_numpy(columns + 1)
    center, scale = standardisation.center, standardisation.scale
    answers = []
    with torch.inference_mode():
        for row in np.asarray(values, dtype=np.float64):
            present = np.flatnonzero(~np.isnan(row))
            x = (row[present] - center[present]) / scale[present]
            ids = torch.from_numpy(present + 1)
            answers.append(network(ids[None], torch.from_numpy(x)[None], requests))
    mean = np.array([answer[0][0].numpy() for answer in answers])
    sigma = np.exp(0.5 * np.array([answer[1][0].numpy() for answer in answers]))
    return mean * scale[columns] + center[columns], sigma * scale[columns]
