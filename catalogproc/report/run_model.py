"""The model of a run: its bundle, where it is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from catalogproc.errors import BundleError
from catalogproc.rundir.manifest import RunIdentity

if TYPE_CHECKING:
    from catalogproc.network.bundle import Bundle


def find_bundle(
    identity: RunIdentity, model: str | Path | None, folder: Path | None = None
) -> Bundle | None:
    """Load the bundle that a run used, or return None where it is not found.

    Parameters
    ----------
    identity
        The run; only a bundle with the hash of its model is returned.
    model
        Folder or shipped name, tried first; then the run's own name of it and the default.
    folder
        The run's folder, which has the matrices of a user's release.
    """
    from catalogproc.network.bundle import load_bundle

    for place in (model, identity.model.get("name"), "default"):
        try:
            bundle = load_bundle(place) if place else None
        except BundleError:
            continue
        if bundle is not None and bundle.hash == identity.model_hash:
            return bundle.for_release(replace(identity.data_release, folder=str(folder or "")))
    return None
