"""A trained model for somebody's own table: any tokens in, any labels out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.contract import load_contract
from catalogproc.errors import ContractError
from catalogproc.job import LABELS, Job
from catalogproc.vocabulary import BANDS

if TYPE_CHECKING:
    from catalogproc.network.bundle import Bundle
    from catalogproc.network.predictor import Predictor

PIECE = 8_192


@dataclass(frozen=True)
class Model:
    """A trained model on a device, ready to answer.

    Attributes
    ----------
    bundle
        What the model reads and answers, and what it was trained on.
    """

    bundle: Bundle
    _predictor: Predictor

    def __repr__(self) -> str:
        return f"<model {self.bundle.name}, {self.bundle.hash[:8]}: {self.bundle.description}>"

    @property
    def answers(self) -> tuple[str, ...]:
        """Every label that it can be asked for."""
        return tuple(self.bundle.requestable)

    def predict(
        self, table: Any, labels: Sequence[str] | None = None, *, job: Job | None = None
    ) -> pa.Table:
        """Answer labels for each row of a table.

        Parameters
        ----------
        table
            A pyarrow Table, a pandas DataFrame or an astropy Table of N stars. What of it is
            read, each where it is there:

            * spectra, as in the Gaia archive: ``bp_coefficients``,
              ``bp_coefficient_errors``, ``bp_n_relevant_bases``, and RP likewise;
            * gaia_source and 2MASS columns: ``phot_g_mean_mag``, ``parallax``, ``j_m``, …
              (``catalogproc describe gaia_source``), which make G flux, colours, E(B-V);
            * tokens by their own names: ``bp0``, ``jh``, ``teff``, … (``bundle.vocabulary``),
              in the vocabulary's units; a column of an astropy Table is converted from its
              own. They come before what is made of the other two.

            Null and NaN are not known, and are not read.
        labels
            What to answer; by default every label of the catalog that the model knows, but
            none that the table itself gives.
        job
            Which of the coefficients are read, as in a run; by default as the job
            gaia-dr3-giants.

        Returns
        -------
        Table
            ``source_id`` where the table has one; for each label its value and, in
            ``e_<label>``, its 1 sigma error, float32 (N,), with units in the fields' metadata.

        Raises
        ------
        ContractError
            No column of the table is one that the model can read, or one has another type or
            a unit that does not fit.
        ReleaseError
            Spectra of a release that the model does not read.
        BundleError
            The model was not trained to answer a label.
        """
        columns = _Columns.of(table)
        values = self._values(columns, job or Job("notebook"))
        asked = self._labels(columns) if labels is None else tuple(labels)
        told = self._predictor.predict(values, asked)
        fields, arrays = [], []
        if "source_id" in columns.arrow.column_names:
            ids = columns.arrow.column("source_id").combine_chunks().cast(pa.int64())
            fields.append(pa.field("source_id", pa.int64()))
            arrays.append(ids)
        for place, label in enumerate(asked):
            token = self.bundle.vocabulary.tokens[self.bundle.vocabulary.column(label)]
            for name, numbers, words in (
                (label, told.mean, token.description),
                (f"e_{label}", told.sigma, f"1 sigma error of {label}"),
            ):
                stated = {"unit": token.unit, "description": words}
                fields.append(pa.field(name, pa.float32(), metadata=stated))
                arrays.append(pa.array(numbers[:, place]))
        return pa.Table.from_arrays(arrays, schema=pa.schema(fields))

    def _labels(self, columns: _Columns) -> tuple[str, ...]:
        known = self.bundle.requestable
        given = columns.arrow.column_names
        return tuple(label for label in LABELS if label in known and label not in given)

    def _values(self, columns: _Columns, job: Job) -> NDArray[np.float64]:
        """What the model reads (N, V), in the tokens' units."""
        vocabulary = self.bundle.vocabulary
        read = [name for name in vocabulary.names if name in columns.arrow.column_names]
        spectra = all(f"{band}_coefficients" in columns.arrow.column_names for band in BANDS)
        if not read and not spectra:
            raise ContractError(
                "the table has no column that the model can read",
                wanted=f"bp_coefficients and rp_coefficients, or {vocabulary.summary()}",
                found=", ".join(columns.arrow.column_names) or "no columns",
            )
        rows = columns.arrow.num_rows
        values = np.full((rows, len(vocabulary)), np.nan)
        if spectra:
            made = self._spectra(columns.arrow, job)
            values[:, : made.shape[1]] = made
        for name in read:
            place = vocabulary.column(name)
            given = columns.numbers(name, vocabulary.tokens[place].unit)
            values[:, place] = np.where(np.isfinite(given), given, values[:, place])
        return values

    def _spectra(self, table: pa.Table, job: Job) -> NDArray[np.float64]:
        from catalogproc.features.tokens import tokens

        spectra = _conformed(table, "xp_continuous")
        for column in load_contract("xp_continuous").columns:
            if column.name not in spectra.column_names:
                nothing = pa.nulls(table.num_rows, column.arrow_type)
                spectra = spectra.append_column(column.name, nothing)
        beside = _conformed(table, "gaia_source")
        known = [name for name in beside.column_names if name != "source_id"]
        pieces = []
        for start in range(0, max(1, table.num_rows), PIECE):
            piece = spectra.slice(start, PIECE).combine_chunks()
            other = beside.slice(start, PIECE).combine_chunks() if known else None
            pieces.append(tokens(piece, other, self.bundle.vocabulary, job).values)
        return np.concatenate(pieces)


@dataclass(frozen=True)
class _Columns:
    """A table as Arrow, and the units of its columns where it knows them."""

    arrow: pa.Table
    units: dict[str, Any]

    @classmethod
    def of(cls, table: Any) -> _Columns:
        if isinstance(table, pa.RecordBatch):
            return cls(pa.Table.from_batches([table]), {})
        if isinstance(table, pa.Table):
            return cls(table, {})
        if hasattr(table, "colnames"):  # an astropy Table
            units = {name: table[name].unit for name in table.colnames if table[name].unit}
            return cls(pa.table({name: _array(table[name]) for name in table.colnames}), units)
        if hasattr(table, "iloc"):  # a pandas DataFrame
            return cls(pa.Table.from_pandas(table, preserve_index=False), {})
        raise ContractError(
            "this is no table", wanted="of pyarrow, pandas or astropy", found=type(table).__name__
        )

    def numbers(self, name: str, unit: str) -> NDArray[np.float64]:
        """A column (N,) in a unit, NaN where it is not known."""
        column = self.arrow.column(name)
        try:
            numbers: NDArray[np.float64] = column.cast(pa.float64()).to_numpy()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise ContractError(
                "a token must be a number", wanted="float", found=column.type, where=name
            ) from None
        if name in self.units and unit:
            from astropy.units import Unit, UnitConversionError

            try:
                factor = self.units[name].to(Unit(unit))
            except UnitConversionError as error:
                raise ContractError(
                    "a token's unit does not fit", wanted=unit, found=error, where=name
                ) from None
            return np.asarray(numbers * factor)
        return numbers


def _array(column: Any) -> pa.Array:
    """A column of an astropy Table: masked is null, two dimensions are lists."""
    values = np.ma.asarray(column)
    plain = np.asarray(np.ma.getdata(values))
    if plain.ndim == 2:
        return pa.array(list(plain.astype(plain.dtype.newbyteorder("="))))
    mask = np.ma.getmaskarray(values)
    if plain.dtype.kind in "OUS":
        return pa.array([None if m else v for m, v in zip(mask, plain.tolist(), strict=True)])
    return pa.array(plain.astype(plain.dtype.newbyteorder("=")), mask=mask)


def _conformed(table: pa.Table, contract: str) -> pa.Table:
    """The columns of a contract that a table has, in their types."""
    held = {}
    for column in load_contract(contract).columns:
        if column.name in table.column_names:
            try:
                held[column.name] = table.column(column.name).cast(column.arrow_type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise ContractError(
                    "a column of another type", wanted=column.type, found=error, where=column.name
                ) from None
    return pa.table(held)


def load_model(name_or_path: str | Path = "default", device: str = "cpu") -> Model:
    """A trained model that ships, or one in a folder.

    Parameters
    ----------
    name_or_path
        "default", the name of one that ships, or a bundle's folder.
    device
        Where it runs, in torch's words.

    Raises
    ------
    BundleError
        No such model, or one in which a byte was changed.

    Examples
    --------
    >>> import catalogproc, pyarrow as pa
    >>> model = catalogproc.load_model("default")
    >>> stars = pa.table({"teff": [4800.0, 4200.0], "m_h": [-0.1, 0.2]})
    >>> model.predict(stars, labels=["logg"]).column_names
    ['logg', 'e_logg']
    """
    from catalogproc.network.bundle import load_bundle
    from catalogproc.network.predictor import Predictor

    bundle = load_bundle(name_or_path)
    return Model(bundle, Predictor(bundle, device))
