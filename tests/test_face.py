"""The public face of the package, and how quickly it answers."""

from __future__ import annotations

import subprocess
import sys

import catalogproc


def test_public_names_are_exact_and_few() -> None:
    assert set(catalogproc.__all__) == {
        "__version__",
        "CatalogprocError",
        "Job",
        "Predictor",
        "Simulator",
        "export",
        "load_bundle",
        "load_contract",
        "load_job",
        "read_spectra",
        "verify",
    }
    assert len(catalogproc.__all__) <= 12
    for name in catalogproc.__all__:
        assert getattr(catalogproc, name) is not None


def test_light_modules_do_not_import_torch_or_dask() -> None:
    script = (
        "import sys\n"
        "import catalogproc.cli, catalogproc.contract, catalogproc.job, catalogproc.sources.xp\n"
        "import catalogproc.sources.gaia, catalogproc.sources.chunks\n"
        "heavy = [n for n in ('torch', 'dask', 'distributed', 'astropy') if n in sys.modules]\n"
        "sys.exit(', '.join(heavy) or None)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
