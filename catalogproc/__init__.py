"""catalogproc: masses, ages and atmospheres of giant stars from Gaia XP spectra."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# The public face. Each name is imported when it is first asked for, so that the command
# line answers at once: torch alone takes seconds.
_HOME = {
    "CatalogprocError": "catalogproc.errors",
    "Job": "catalogproc.job",
    "load_job": "catalogproc.job",
    "run": "catalogproc.cluster.api",
    "open_catalog": "catalogproc.export.open_catalog",
    "verify": "catalogproc.rundir.verify",
    "export_catalog": "catalogproc.export.export",
    "load_model": "catalogproc.inference.model",
    "map_partition": "catalogproc.inference.partition",
    "population": "catalogproc.evaluation.population",
    "read_spectra": "catalogproc.readers.xp",
    "Simulator": "catalogproc.simulation.simulator",
    "load_contract": "catalogproc.contract",
}

__all__ = ["__version__", *_HOME]

# What the package logs is shown by who asks for it: logging.basicConfig(), or -v.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'catalogproc' has no attribute {name!r}")
    if name != "CatalogprocError":
        import_module("catalogproc.errors").refuse_windows()
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
