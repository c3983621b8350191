"""What a model that is trained for another Gaia release inherits from the one that it begins from.

Canonical coefficients mean the same whatever the release, and are inherited with all other
tokens. Coefficients of an archive's own basis mean something else in another release: their rows of
the network are left behind, and new ones are trained; colours and labels keep theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from catalogproc.network.bundle import Bundle, Domain, ErrorScaling, Standardisation
from catalogproc.network.shape import Shape
from catalogproc.release import Release
from catalogproc.training.vocabulary_extension import EMBEDDINGS
from catalogproc.vocabulary import Token

if TYPE_CHECKING:
    from catalogproc.network.transformer import Transformer


@dataclass(frozen=True)
class ReducedBundle(Bundle):
    """A trained model without some of its tokens.

    Attributes
    ----------
    whole
        The model with all of them.
    kept
        The tokens that are left, with their numbers in the whole model.
    """

    whole: Bundle | None = None
    kept: tuple[Token, ...] = ()

    def network(self, device: str = "cpu") -> Transformer:
        """Return the network without the rows of the tokens that were left behind.

        Parameters
        ----------
        device
            As of :meth:`Bundle.network`.
        """
        import torch

        from catalogproc.network.transformer import Transformer

        assert self.whole is not None
        rows = [0, *(token.number for token in self.kept)]  # the first one is padding
        state = self.whole.network(device).state_dict()
        network = Transformer(self.shape).to(device)
        network.load_state_dict(
            {name: value[torch.tensor(rows, device=value.device)] if name in EMBEDDINGS else value
             for name, value in state.items()}
        )  # fmt: skip
        return network.float().requires_grad_(False).eval()


def inherited(bundle: Bundle, release: Release | None, basis: str) -> Bundle:
    """Return the part of a model that a training for a release begins from.

    Parameters
    ----------
    bundle
        The trained model.
    release
        The release that is trained for; None is the model's own.
    basis
        Basis of the coefficients that are trained; "" is the model's.

    Returns
    -------
    The model for that release; without its coefficients where these mean something else.

    Raises
    ------
    ReleaseError
        Canonical coefficients are to be made of a release that has no design matrices.
    """
    old = bundle.vocabulary
    wanted = basis or old.basis
    if release is None:
        return bundle
    same = old.basis == wanted and (wanted == "canonical" or old.data_release.same_spectra(release))
    if same:
        return bundle.for_release(release)
    return _without_coefficients(bundle, release, wanted)


def left_behind(bundle: Bundle | None) -> tuple[str, ...]:
    """Return the names of the tokens that a model was reduced by.

    Parameters
    ----------
    bundle
        As :func:`inherited` returns it; None for none.
    """
    if not isinstance(bundle, ReducedBundle) or bundle.whole is None:
        return ()
    kept = {token.name for token in bundle.kept}
    return tuple(name for name in bundle.whole.vocabulary.names if name not in kept)


def _without_coefficients(bundle: Bundle, release: Release, basis: str) -> ReducedBundle:
    old = bundle.vocabulary
    kept = tuple(token for token in old.tokens if token.kind != "coefficient")
    at = np.array([token.number - 1 for token in kept])
    numbered = tuple(replace(token, number=k) for k, token in enumerate(kept, start=1))
    number = {token.number: k for k, token in enumerate(kept, start=1)}
    names = {token.name for token in kept}
    known = {item.name: getattr(bundle, item.name) for item in fields(Bundle)}
    changed = {
        "vocabulary": replace(
            old, tokens=numbered, release=release.name, basis=basis, declared=release
        ),
        "standardisation": Standardisation(
            bundle.standardisation.center[at], bundle.standardisation.scale[at]
        ),
        "domain": Domain(bundle.domain.low[at], bundle.domain.high[at]),
        "requestable": tuple(name for name in bundle.requestable if name in names),
        "shape": _shape(bundle.shape, number),
        "error_scaling": None if bundle.error_scaling is None else ErrorScaling(
            *(column[at] for column in vars(bundle.error_scaling).values())
        ),
    }  # fmt: skip
    return ReducedBundle(**(known | changed), whole=bundle, kept=kept)


def _shape(shape: Shape, number: dict[int, int]) -> Shape:
    """Return a shape for fewer tokens, which have new numbers."""
    listed = {
        name: tuple(number[n] for n in getattr(shape, name) if n in number)
        for name in ("mixture", "late")
    }
    return replace(shape, tokens=len(number), **listed)  # type: ignore[arg-type]
