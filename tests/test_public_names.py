"""The public face of the package, and how quickly it answers."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import catalogproc


def test_public_names_are_exact_and_few() -> None:
    assert set(catalogproc.__all__) == {
        "__version__",
        "CatalogprocError",
        "Job",
        "Simulator",
        "export_catalog",
        "load_contract",
        "load_job",
        "load_model",
        "map_partition",
        "open_catalog",
        "population",
        "read_spectra",
        "run",
        "verify",
    }
    assert len(catalogproc.__all__) <= 14
    for name in catalogproc.__all__:
        assert getattr(catalogproc, name).__doc__


def test_type_checkers_see_the_same_names() -> None:
    stub = (Path(catalogproc.__file__).parent / "__init__.pyi").read_text()
    names = set(re.findall(r"^from (\S+) import (\w+) as \2$", stub, flags=re.MULTILINE))
    assert {name for _, name in names} | {"__version__"} == set(catalogproc.__all__)
    for home, name in names:
        assert getattr(import_module(home), name) is getattr(catalogproc, name)


def test_light_modules_do_not_import_torch_or_dask() -> None:
    script = (
        "import sys\n"
        "import catalogproc.cli.main, catalogproc.contract, catalogproc.job\n"
        "import catalogproc.readers.xp\n"
        "import catalogproc.readers.gaia_source, catalogproc.readers.chunks\n"
        "heavy = [n for n in ('torch', 'dask', 'distributed', 'astropy') if n in sys.modules]\n"
        "sys.exit(', '.join(heavy) or None)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
