"""`make gpu-pack`: what a GPU machine without network needs besides this checkout.

data/     the dataset of real giants in a compact form, to train on
wheels/   packages that are not on every machine with torch
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalogproc.datasets.dataset import (
    FACTS,
    TEST,
    TRAIN,
    dataset_facts,
    fingerprint,
)
from catalogproc.io.atomic import write_atomic
from catalogproc.vocabulary import BANDS

PACKED_FROM = "packed_from"
"""Fact of a compact dataset: the fingerprint of the dataset that it was made of."""

TEST_ROWS = 16
"""Rows of the test part that travel: bundles predict a few stars to check themselves."""

ERROR_BITS = 7
"""Bits of the mantissa that errors of coefficients keep: a relative change of 0.4 % at most."""

WHEELS = (
    "dask", "distributed", "tornado", "tblib", "zict", "locket", "partd",
    "astropy", "pyerfa", "astropy-iers-data", "astropy-healpix", "dust_extinction",
    "gaiadr3_zeropoint", "isal", "prov", "tomli-w",
)  # fmt: skip
"""Packages that a machine with torch, NumPy, Arrow and pytest may lack, without the dashboard."""

PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any")


def pack_dataset(data: Path, folder: Path) -> Path:
    """Write a compact form of a dataset, to train on.

    All rows of the training part are kept, and all values; errors of coefficients are rounded.

    Parameters
    ----------
    data
        The dataset.
    folder
        The folder to write; it is replaced.
    """
    facts = dataset_facts(data)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _write(rounded_errors(pq.read_table(data / f"{TRAIN}.parquet")), folder / f"{TRAIN}.parquet")
    test = pq.read_table(data / f"{TEST}.parquet")
    first = test.filter(pc.equal(test["repeat"], 0)).slice(0, TEST_ROWS)
    _write(first, folder / f"{TEST}.parquet")
    about = facts | {"sha256": fingerprint(folder), PACKED_FROM: facts["sha256"]}
    write_atomic(folder / FACTS, json.dumps(about, indent=1).encode() + b"\n")
    return folder


def rounded_errors(table: pa.Table) -> pa.Table:
    """Return a table of the contract ``training`` with rounded errors of coefficients.

    Parameters
    ----------
    table
        The rows.
    """
    for name in (f"{band}_coefficient_errors" for band in BANDS):
        lists = table[name].combine_chunks()
        values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        column = pa.ListArray.from_arrays(
            lists.offsets if not lists.offset else pa.array(_offsets(lists)),
            pa.array(shortened(values)), mask=lists.is_null() if lists.null_count else None,
        )  # fmt: skip
        field = table.schema.field(name)
        table = table.set_column(table.column_names.index(name), field, column.cast(field.type))
    return table


def shortened(values: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, Any]:
    """Return float32 numbers rounded to ERROR_BITS bits of the mantissa, which compress well.

    Parameters
    ----------
    values
        The numbers; NaN and infinity are kept.
    """
    dropped = 23 - ERROR_BITS
    bits = values.view(np.uint32)
    half = np.uint32(1 << (dropped - 1))
    mask = np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)
    return np.where(np.isfinite(values), ((bits + half) & mask).view(np.float32), values)


def fetch_wheels(folder: Path, python: str, names: Sequence[str] = WHEELS) -> None:
    """Download wheels for another Python, in the versions that are installed here.

    Parameters
    ----------
    folder
        Where they are written.
    python
        Version of that Python, such as 3.12.
    names
        The packages.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    options += [word for name in PLATFORMS for word in ("--platform", name)]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    for name in names:
        wanted = f"{name}=={metadata.version(name)}"
        done = subprocess.run(
            [*pip, "download", "--no-deps", *options, "--dest", str(folder), wanted],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:  # no wheel is offered: pure Python, for any machine
            subprocess.run(
                [*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), wanted], check=True
            )


def size(folder: Path) -> int:
    """Return the bytes of all files of a folder.

    Parameters
    ----------
    folder
        The folder.
    """
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _offsets(lists: pa.ListArray) -> np.ndarray[Any, Any]:
    offsets = lists.offsets.to_numpy()
    return offsets - offsets[0]


def _write(table: pa.Table, path: Path) -> None:
    floats = [
        leaf for leaf, kind in _leaves(table.schema) if pa.types.is_floating(kind)
    ]  # fmt: skip
    others = [leaf for leaf, kind in _leaves(table.schema) if not pa.types.is_floating(kind)]
    pq.write_table(
        table, path, compression="zstd", compression_level=9, use_dictionary=others,
        use_byte_stream_split=floats,
    )  # fmt: skip


def _leaves(schema: pa.Schema) -> list[tuple[str, pa.DataType]]:
    """Return the path and the type of each column in the file."""
    return [
        (f"{field.name}.list.element", field.type.value_type)
        if pa.types.is_list(field.type)
        else (field.name, field.type)
        for field in schema
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="make gpu-pack", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="dataset of real giants")
    parser.add_argument("--pack", type=Path, required=True, help="folder to write")
    parser.add_argument("--python", default="3.12", help="version of Python on the GPU machine")
    options = parser.parse_args()
    fetch_wheels(options.pack / "wheels", options.python)
    pack_dataset(options.data, options.pack / "data")
    for name in ("wheels", "data"):
        print(f"{options.pack / name}: {size(options.pack / name) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
