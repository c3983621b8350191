"""Files of spectra: in the archive's layout, which GaiaXPy and ``catalogproc run`` read, and as
flux over wavelength.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc import __version__
from catalogproc.contract import Column, Contract, load_contract
from catalogproc.errors import JobError
from catalogproc.features.canonical import BASIS_ID
from catalogproc.io.atomic import AtomicFile
from catalogproc.io.parquet_writer import TableWriter
from catalogproc.network.bundle import Bundle
from catalogproc.spectra.generated import Spectra
from catalogproc.vocabulary import BANDS

SUFFIXES = (".parquet", ".ecsv")


def model_facts(bundle: Bundle) -> dict[str, str]:
    """Return the metadata of a file that a model made: the program, the model, the release.

    Parameters
    ----------
    bundle
        The trained model.
    """
    made_by = {"catalogproc": __version__, "model": bundle.name, "model_hash": bundle.hash}
    return made_by | bundle.release.facts


def check_name(path: Path, where: str) -> None:
    """Raise JobError unless spectra can be written in the format of a file extension.

    Parameters
    ----------
    path
        The file.
    where
        The option that names it.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise JobError(
            "spectra are written in the format that the name ends in",
            wanted=" | ".join(SUFFIXES), found=path.name, where=where,
        )  # fmt: skip


def spectra_table(
    spectra: Spectra, source_id: NDArray[np.int64], extra: Mapping[str, NDArray[np.floating]]
) -> tuple[pa.Table, Contract]:
    """Return N spectra in the archive's layout, and the contract of that table.

    All coefficients are marked as relevant. Correlations are those of the spectra, zero where they
    have none; the archive has no place for those between the bands. Canonical coefficients carry
    their basis in the column basis_id; GaiaXPy reads them as the archive's and gives their flux.

    Parameters
    ----------
    spectra
        The spectra.
    source_id
        Identifiers (N,).
    extra
        Other columns (N,) by name, such as the labels given.
    """
    identifier = load_contract("xp_continuous")["source_id"]
    made: list[tuple[Column, pa.Array]] = [(identifier, pa.array(source_id))]
    for name, values in extra.items():
        kind = Column(name, "float32", f"{name}, as given or used", nullable=True)
        made.append((kind, pa.array(np.asarray(values, dtype=np.float32))))
    packed = _packed(spectra)
    for band in BANDS:
        made += _band_columns(band, spectra, packed[band])
    if spectra.basis == "canonical":
        basis = pa.repeat(pa.scalar(BASIS_ID), len(spectra))
        made.append((load_contract("xp_continuous")["basis_id"], basis))
    table = pa.table({column.name: array for column, array in made})
    words = "Gaia XP spectra that a model made"
    contract = Contract("generated_xp", 1, words, tuple(column for column, _ in made))
    return table.cast(contract.arrow_schema()), contract


def _band_columns(
    band: str, spectra: Spectra, packed: NDArray[np.floating]
) -> list[tuple[Column, pa.Array]]:
    """Return the columns of one band; ``packed`` are its correlations (N, n(n-1)/2)."""
    archive = load_contract("xp_continuous")
    count, size = spectra.coefficients[band].shape
    basis = spectra.release.basis_function_id(band)
    facts = {
        # GaiaXPy chooses its design matrices by this number.
        f"{band}_basis_function_id": ("int16", basis, "the archive's number of the basis"),
        f"{band}_n_parameters": ("int16", size, "number of coefficients"),
        f"{band}_standard_deviation": ("float32", 1.0, "errors are not scaled by a fit's"),
    }
    made = []
    for name, (kind, value, meaning) in facts.items():
        if value is None:
            continue
        column = Column(name, kind, meaning)
        made.append((column, pa.array(np.full(count, value)).cast(column.arrow_type)))
    relevant = archive[f"{band}_n_relevant_bases"]
    made.append((relevant, pa.array(np.full(count, size, dtype=np.int16))))
    lists = {
        f"{band}_coefficients": spectra.coefficients[band],
        f"{band}_coefficient_errors": spectra.errors[band],
        f"{band}_coefficient_correlations": packed,
    }
    return made + [(archive[name], list_array(x, archive[name])) for name, x in lists.items()]


def write_spectra(
    path: Path,
    spectra: Spectra,
    source_id: NDArray[np.int64],
    extra: Mapping[str, NDArray[np.floating]],
    facts: Mapping[str, str],
) -> None:
    """Write N spectra as Parquet or ECSV in the archive's layout, completely or not at all.

    Parameters
    ----------
    path
        A .parquet or .ecsv file.
    spectra, source_id, extra
        As for :func:`spectra_table`.
    facts
        Provenance.
    """
    table, contract = spectra_table(spectra, source_id, extra)
    _write(path, table, contract, facts)


def write_flux(
    path: Path,
    spectra: Spectra,
    source_id: NDArray[np.int64],
    facts: Mapping[str, str],
    e_g_mag: NDArray[np.floating] | None = None,
) -> None:
    """Write flux over wavelength as Parquet or ECSV: one row per star and wavelength.

    Parameters
    ----------
    path
        A .parquet or .ecsv file.
    spectra
        N spectra.
    source_id
        Identifiers (N,).
    facts
        Provenance.
    e_g_mag
        Error of the magnitude that the spectra are scaled to (N,), mag; None is zero.
    """
    sampled = spectra.sampled()
    count, size = sampled.flux.shape
    unit = "W.m**-2.nm**-1" if np.isfinite(spectra.g_mag).all() else ""
    over = "" if unit else ", over the electrons per second of G"
    level = np.zeros(count) if e_g_mag is None else e_g_mag * np.log(10.0) / 2.5
    columns = (
        Column("source_id", "int64", "the star", ucd="meta.id;meta.main"),
        Column("wavelength", "float32", "wavelength in vacuum", unit="nm", ucd="em.wl"),
        Column("flux", "float64", f"flux density{over}", unit=unit, ucd="phot.flux.density;em.wl"),
        Column("flux_error", "float64", f"1 sigma error of flux{over}, at this G", unit=unit,
               ucd="stat.error;phot.flux.density;em.wl"),
        Column("scale_error", "float32", "relative error of the star's flux at all wavelengths, "
               "by its luminosity", ucd="stat.error;arith.factor"),
    )  # fmt: skip
    contract = Contract("generated_flux", 1, "Flux of spectra that a model made", columns)
    table = pa.table(
        [
            pa.array(np.repeat(source_id, size)),
            pa.array(np.tile(sampled.wavelength.astype(np.float32), count)),
            pa.array(sampled.flux.ravel()),
            pa.array(sampled.error.ravel()),
            pa.array(np.repeat(level.astype(np.float32), size)),
        ],
        schema=contract.arrow_schema(),
    )
    _write(path, table, contract, facts)


def _packed(spectra: Spectra) -> dict[str, NDArray[np.floating]]:
    """Correlations (N, n(n-1)/2) by band, as in the archive: strict lower triangles."""
    packed: dict[str, NDArray[np.floating]] = {}
    first = 0
    for band in BANDS:
        count, size = spectra.coefficients[band].shape
        row, column = np.tril_indices(size, -1)
        packed[band] = np.zeros((count, len(row)), dtype=np.float32)
        if spectra.correlations is not None:
            packed[band][:] = spectra.correlations[:, first + row, first + column]
        first += size
    return packed


def list_array(values: NDArray[np.floating], column: Column) -> pa.Array:
    """Return the rows of a matrix as an Arrow array of lists.

    Parameters
    ----------
    values
        Numbers (N, C).
    column
        Declares the type.
    """
    kind = column.arrow_type
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(values.ravel()).cast(kind.value_type)
    )


def _write(path: Path, table: pa.Table, contract: Contract, facts: Mapping[str, str]) -> None:
    check_name(path, "--output")
    if path.suffix.lower() == ".parquet":
        with TableWriter(path, contract, facts) as writer:
            writer.write(table)
        return
    # Arrays in ECSV are JSON in a quoted field, as the archive's own are: Astropy writes them.
    from astropy.table import Column as AstropyColumn
    from astropy.table import Table

    made = Table(meta=dict(facts))
    for column in contract.columns:
        values = table[column.name].combine_chunks()
        if pa.types.is_list(values.type):
            array = values.flatten().to_numpy().reshape(len(values), -1)
        else:
            array = values.to_numpy(zero_copy_only=False)
        made[column.name] = AstropyColumn(array, description=column.description)
        if column.unit:
            made[column.name].unit = column.unit.replace("electron.s**-1", "electron / s")
    with AtomicFile(path) as file:
        file.write("\n".join([*_ecsv(made), ""]).encode())


def _ecsv(table: object) -> list[str]:
    from io import StringIO

    out = StringIO()
    table.write(out, format="ascii.ecsv", delimiter=",")  # type: ignore[attr-defined]
    return out.getvalue().splitlines()
