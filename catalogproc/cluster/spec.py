"""What the user asks of a run: the data, the model, and where the work is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from catalogproc.job import Job

LOOPBACK = "127.0.0.1"

Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class ClusterConfig:
    """Where a run is processed. Nothing here changes a number in the catalog.

    Attributes
    ----------
    scheduler
        Address of an existing Dask scheduler; None starts a local cluster.
    workers
        Number of workers of the local cluster; None fits it to the machine.
    device
        ``auto``, ``cpu`` or ``cuda``.
    dashboard
        Address of the local cluster's dashboard; another port is used if this one is taken.
    share_gpu
        Several workers may use one GPU.
    cpu_workers
        Number of workers on the CPU in addition to those on GPUs.
    """

    scheduler: str | None = None
    workers: int | None = None
    device: str = "auto"
    dashboard: str = f"{LOOPBACK}:8787"
    share_gpu: bool = False
    cpu_workers: int = 0


@dataclass(frozen=True)
class RunSpec:
    """A run as the user asked for it. One path may be given for a sequence of one.

    Attributes
    ----------
    input
        Spectra: files, globs, folders or addresses (s3://…).
    output
        Folder or address of the catalog. It need not exist.
    gaia_source
        Tables that are joined to the spectra by source_id; as ``input``.
    model, job
        Names of a shipped model and job, or paths; a job may be a Job.
    dust
        Dust map that replaces the job's; "none" reads none, None keeps the job's.
    cluster
        Where the run is processed.
    strict
        Refuse gaia_source tables that probably do not fit the spectra, in place of a warning.
    release
        The Gaia release of the spectra: one that ships, or a TOML file; None is the model's.
    bridge
        The file of a bridge, by which a model of canonical coefficients reads the spectra; with
        ``release``, all else is of that release.
    posterior
        Number of values of each star's posterior that replaces the job's; None keeps it.
    """

    input: Paths
    output: str | Path
    gaia_source: Paths = ()
    model: str | Path = "default"
    job: str | Path | Job = "gaia-dr3-giants"
    dust: str | None = None
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    strict: bool = False
    release: str | Path | None = None
    bridge: str | Path | None = None
    posterior: int | None = None

    @property
    def input_paths(self) -> tuple[str | Path, ...]:
        """``input`` as a tuple."""
        return _as_tuple(self.input)

    @property
    def gaia_source_paths(self) -> tuple[str | Path, ...]:
        """``gaia_source`` as a tuple."""
        return _as_tuple(self.gaia_source)

    def with_output(self, folder: Path) -> Self:
        """Return the same run with another output folder.

        Parameters
        ----------
        folder
            The local folder of an output that was given as an address.
        """
        return replace(self, output=folder)


def _as_tuple(paths: Paths) -> tuple[str | Path, ...]:
    return (paths,) if isinstance(paths, str | Path) else tuple(paths)
