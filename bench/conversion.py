"""Conversion of archive text to Parquet, compared with decompression alone and with GaiaXPy."""

from __future__ import annotations

import itertools
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from bench.kit import Kit
from bench.machine import ROOT
from bench.measure import Figures, Noted, Row, Target, race, seconds

TITLE = "convert, without correlations"
ARCHIVE = ROOT / "tests" / "data" / "gaia_xp_correlated" / "xp_continuous_30.parquet"
ROWS = (
    Row("csv.gz", "stars/s"),
    Row("csv.gz against unpacking alone", "× its time", Target(1.5, at_most=True)),
    Row("ecsv.gz", "stars/s"),
    Row("ecsv.gz against unpacking alone", "× its time", Target(1.5, at_most=True)),
    Row("GaiaXPy's parser, csv", "stars/s"),
    Row("csv.gz against GaiaXPy's parser", "×", Target(8)),
    Row("csv.gz a star", "bytes"),
)


def measure(kit: Kit) -> Figures:
    from isal import igzip

    from catalogproc.readers.convert import convert

    sizes, folder = kit.sizes, kit.folder / "convert"
    folder.mkdir(exist_ok=True)
    figures: dict[str, float | Noted] = {}
    turns = itertools.count()

    def unpack(path: Path) -> None:
        with igzip.open(path, "rb") as file:
            while file.read(1 << 20):
                pass

    def rewrite(path: Path) -> None:
        output = folder / f"out-{next(turns)}"  # an existing conversion would be skipped
        convert([path], output)
        shutil.rmtree(output)

    for ending in ("csv", "ecsv"):
        path = folder / f"spectra.{ending}.gz"
        with igzip.open(path, "wb", compresslevel=2) as file:
            for text in archive(sizes.convert, ecsv=ending == "ecsv"):
                file.write(text.encode())
        ours, alone = race(
            lambda path=path: rewrite(path),  # type: ignore[misc]
            lambda path=path: unpack(path),  # type: ignore[misc]
            sizes.repeats,
            sizes.budget,
        )
        figures[f"{ending}.gz"] = sizes.convert / ours
        figures[f"{ending}.gz against unpacking alone"] = ours / alone
    figures["csv.gz a star"] = (folder / "spectra.csv.gz").stat().st_size / sizes.convert

    plain = folder / "plain.csv"
    plain.write_text("".join(archive(sizes.parser, ecsv=False)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GaiaXPy's own, on import too
        from gaiaxpy.file_parser.parse_internal_continuous import InternalContinuousParser

        theirs = sizes.parser / seconds(
            lambda: InternalContinuousParser().parse_file(plain, disable_info=True),
            sizes.repeats,
            sizes.budget / 2,
        )
    figures["GaiaXPy's parser, csv"] = Noted(theirs, "unpacked beforehand; covariances too")
    figures["csv.gz against GaiaXPy's parser"] = float(figures["csv.gz"]) / theirs  # type: ignore[arg-type]
    shutil.rmtree(folder)
    return figures


def archive(n: int, *, ecsv: bool) -> Iterator[str]:
    """Yield the lines of an archive file with all columns, including correlations.

    30 real spectra are repeated with other source_ids: 1.2 MB of text before a repetition, far
    more than the window of gzip.

    Parameters
    ----------
    n
        Number of spectra.
    ecsv
        ECSV in place of CSV.
    """
    table = pq.read_table(ARCHIVE)
    if ecsv:
        yield "# %ECSV 1.0\n# ---\n# delimiter: ','\n# datatype:\n"
    yield ",".join(table.column_names) + "\n"
    cells = [
        [_cell(value, ecsv) for value in column.to_pylist()]
        for column in table.drop_columns("source_id").columns
    ]
    at = table.column_names.index("source_id")
    rests = [list(row) for row in zip(*cells, strict=True)]
    for number in range(n):
        row = rests[number % len(rests)]
        yield ",".join([*row[:at], str((number + 1) << 35), *row[at:]]) + "\n"


def _cell(value: object, ecsv: bool) -> str:
    if value is None:
        return "null" if ecsv else ""
    if not isinstance(value, str):
        return str(value)
    numbers = value.strip("()[] ").split(",")
    if ecsv:
        return '"[' + ",".join(number.strip() for number in numbers) + ']"'
    return '"(' + ", ".join(number.strip() for number in numbers) + ')"'
