"""A trained model for any table: labels from any tokens."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from catalogproc.errors import plural
from catalogproc.features.derived_labels import known_labels
from catalogproc.features.table_inputs import TableInputs, default_job
from catalogproc.io.progress_bar import Progress, shown

if TYPE_CHECKING:
    from catalogproc.job import Job
    from catalogproc.network.bundle import Bundle
    from catalogproc.network.predictor import Predictor

_LOG = logging.getLogger("catalogproc.predict")


@dataclass(frozen=True)
class Model:
    """A trained model on a device, ready to predict.

    Attributes
    ----------
    bundle
        The tokens, the training data and the calibration of the model.
    """

    bundle: Bundle
    _predictor: Predictor

    def __repr__(self) -> str:
        return f"<model {self.bundle.name}, {self.bundle.hash[:8]}: {self.bundle.description}>"

    @property
    def labels(self) -> tuple[str, ...]:
        """Every token that the model can predict."""
        return tuple(self.bundle.requestable)

    def inputs(self, table: Any, *, job: Job | None = None) -> TableInputs:
        """Return what the model reads of a table: its fields ``used`` and ``ignored`` name columns.

        Parameters
        ----------
        table, job
            As for :meth:`predict`.

        Raises
        ------
        ContractError
            As for :meth:`predict`.
        """
        vocabulary = self.bundle.vocabulary
        return TableInputs.of(table, vocabulary, job or default_job(vocabulary))

    def predict(
        self,
        table: Any,
        labels: Sequence[str] | None = None,
        *,
        job: Job | None = None,
        progress: Progress | bool = True,
    ) -> pa.Table:
        """Predict labels for each row of a table.

        Parameters
        ----------
        table
            A table of N stars: of pyarrow, pandas, astropy or polars, or any object with the
            Arrow C stream interface (``__arrow_c_stream__``). Columns are found as in files, by
            their names in any case:

            * spectra, as in the Gaia archive: ``bp_coefficients``,
              ``bp_coefficient_errors``, ``bp_n_relevant_bases``, and RP likewise;
            * gaia_source and 2MASS columns: ``phot_g_mean_mag``, ``parallax``, ``j_m``, …
              (``catalogproc describe gaia_source``), which give the G flux and colours;
            * tokens: ``bp0``, ``jh``, ``teff``, … (``bundle.vocabulary``), or ``age`` [Gyr] and
              ``ebv`` [mag]; they come before what is made of the other two;
            * errors of these: ``e_teff`` or ``teff_error``.

            Columns with a unit (astropy; ``unit`` in the metadata of Arrow's fields) are
            converted. Null, NaN and masked values are missing, also those that a column
            ``NAME.mask`` masks.
        labels
            What to predict: tokens, or ``age`` [Gyr], ``ebv`` [mag] and ``dist`` [kpc], which
            needs G magnitudes, in any case; by default the job's labels that the model can
            predict, without those that the table has a column of.
        job
            Which tokens are made of spectra and gaia_source, and how errors are propagated, as
            in a run; by default as the job gaia-dr3-giants.
        progress
            True shows a bar in a terminal and in a notebook, if it takes its time; False
            nothing. A function is called with (rows done, rows, a note).

        Returns
        -------
        Table
            ``source_id`` where the table has one; for each label its value and, in
            ``e_<label>``, its total 1-sigma uncertainty, as a catalog has them (a probability,
            ``rc_prob``, has none); for age, ebv and dist also the percentiles ``<label>_16`` and
            ``<label>_84``: float32 (N,), with units in the fields' metadata. NaN for a row
            without a token. The table's
            metadata name the columns that were ``used`` and ``ignored`` and, of a model that
            reads errors, the inputs for which ``typical_errors`` were taken, as none are given.

        Raises
        ------
        ContractError
            No column of the table is one that the model can read; two columns are the same
            token; one has another type, or a unit that cannot be converted.
        ReleaseError
            Spectra of a release that the model does not read.
        BundleError
            The model was not trained to predict a label.
        JobError
            A label that the model does not have; a distance without magnitudes.
        """
        from catalogproc.inference.predicted_columns import predicted_columns, requested_tokens
        from catalogproc.inference.table_prediction import counts_text, predict_table

        inputs, vocabulary = self.inputs(table, job=job), self.bundle.vocabulary
        wanted = self._labels(inputs) if labels is None else labels
        wanted = known_labels(wanted, vocabulary, "labels")
        tokens = requested_tokens(wanted, inputs, (*inputs.used, *inputs.ignored))
        _LOG.info(
            "%s of %s; used: %s; ignored: %s",
            *(", ".join(wanted), plural(len(inputs), "row")),
            *(", ".join(inputs.used), ", ".join(inputs.ignored) or "nothing"),
        )
        with shown(progress, "stars") as report:
            found = predict_table(self._predictor, inputs, tokens, report)
        fields, arrays = [], []
        if inputs.source_id is not None:
            fields.append(pa.field("source_id", pa.int64()))
            arrays.append(inputs.source_id)
        made = predicted_columns(wanted, found, vocabulary)
        for name, (numbers, (unit, words)) in made.items():
            metadata = {"unit": unit, "description": words}
            fields.append(pa.field(name, pa.float32(), metadata=metadata))
            arrays.append(pa.array(numbers.astype(np.float32)))
        columns = {"used": ", ".join(inputs.used), "ignored": ", ".join(inputs.ignored)}
        if found.typical_errors:
            columns["typical_errors"] = counts_text(found.typical_errors)
        return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=columns))

    def _labels(self, inputs: TableInputs) -> tuple[str, ...]:
        from catalogproc.inference.catalog_columns import requested_labels

        job = inputs.job or default_job(inputs.vocabulary)
        return tuple(
            label
            for label in requested_labels(job, self.bundle)
            if inputs.named.get(label, "").lower() != label.lower()
        )


def load_model(
    name_or_path: str | Path = "default",
    device: str = "cpu",
    release: str | Path | None = None,
) -> Model:
    """Load a trained model, a shipped one or one in a folder.

    Parameters
    ----------
    name_or_path
        "default", the name of a shipped model, or a bundle's folder.
    device
        Where it runs, as torch names it.
    release
        The Gaia release of the spectra, "dr3", "dr4" or a TOML file; by default the model's.

    Raises
    ------
    BundleError
        No such model, or one of which a byte was changed.
    ReleaseError
        The model reads spectra of another release.

    Examples
    --------
    >>> import catalogproc, pyarrow as pa
    >>> model = catalogproc.load_model("default")
    >>> stars = pa.table({"teff": [4800.0, 4200.0], "m_h": [-0.1, 0.2]})
    >>> model.predict(stars, labels=["logg"]).column_names
    ['logg', 'e_logg']
    >>> model.predict(stars, labels=["Age"]).column_names
    ['age', 'e_age', 'age_16', 'age_84']
    """
    from catalogproc.network.bundle import load_bundle
    from catalogproc.network.predictor import Predictor

    bundle = load_bundle(name_or_path).for_release(release)
    return Model(bundle, Predictor(bundle, device))
