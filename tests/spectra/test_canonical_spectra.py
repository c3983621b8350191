"""Models of canonical coefficients: completed and generated spectra."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import real_stars
from support.bundles import tiny_bundle

from catalogproc.datasets.star_reader import StarFiles
from catalogproc.features import canonical
from catalogproc.features.canonical_tables import designs, measured
from catalogproc.features.one_band import OTHER
from catalogproc.network.bundle import Bundle
from catalogproc.network.predictor import Predictor
from catalogproc.spectra.generate import SpectraRequest, make_spectra
from catalogproc.spectra.inpaint import InpaintRequest, SpectraOutput, inpaint
from catalogproc.vocabulary import BANDS, load_vocabulary

N = 30


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    vocabulary = replace(load_vocabulary(), basis="canonical")
    return tiny_bundle(tmp_path_factory.mktemp("canonical") / "model", vocabulary)


def stars(folder: Path, hidden: str = "", factor: float = 1.0) -> StarFiles:
    """Real spectra with G magnitudes; a band may be that of other stars."""
    folder.mkdir()
    table = real_stars.faint().slice(0, N)
    if hidden:
        for what, scale in (("coefficients", factor), ("coefficient_errors", 1.0)):
            name = f"{hidden}_{what}"
            moved = np.roll(scale * real_stars.stacked(table, name), 7, axis=0)
            table = table.set_column(
                table.column_names.index(name), name, pa.array(list(moved), table[name].type)
            )
    pq.write_table(table, folder / "xp.parquet")
    g = pa.table({"source_id": table["source_id"], "phot_g_mean_mag": np.linspace(14, 17, N)})
    pq.write_table(g, folder / "g.parquet")
    return StarFiles([folder / "xp.parquet"], [folder / "g.parquet"])


def completed(bundle: Bundle, files: StarFiles, words: tuple[str, str], path: Path) -> pa.Table:
    done = inpaint(files, InpaintRequest.of(*words), SpectraOutput(path), Predictor(bundle))
    assert done.read == done.written == N
    assert len(done.lines()) == 1
    table = pq.read_table(path)
    assert set(table["basis_id"].to_pylist()) == {canonical.BASIS_ID}
    return table


@pytest.mark.parametrize(
    "words",
    [("rp", "bp"), ("bp", "rp"), ("all", "bp"), ("rp", "missing"), ("640-1020", "336-500")],
)
def test_changing_a_hidden_band_changes_nothing_of_a_completed_spectrum(
    bundle: Bundle, words: tuple[str, str], tmp_path: Path
) -> None:
    hidden = "rp" if words == ("bp", "rp") else "bp"
    one = completed(bundle, stars(tmp_path / "a"), words, tmp_path / "1.parquet")
    other = stars(tmp_path / "b", hidden, 1.3)
    two = completed(bundle, other, words, tmp_path / "2.parquet")
    for band in BANDS:
        for what in ("coefficients", "coefficient_errors"):
            name = f"{band}_{what}"
            found, again = (real_stars.stacked(table, name) for table in (one, two))
            np.testing.assert_array_equal(found, again)
    # The band that is read is there as it was read: by its own operator.
    shown = OTHER[hidden]
    table = pq.read_table(tmp_path / "a" / "xp.parquet")
    parts = [{band: real_stars.stacked(table, f"{band}_{what}") for band in BANDS}
             for what in ("coefficients", "coefficient_errors")]  # fmt: skip
    for part in parts:
        part[hidden] = np.full_like(part[hidden], np.nan)
    alone = canonical.from_coefficients(*parts)
    at = alone.relevant()[shown]
    kept = real_stars.stacked(one, f"{shown}_coefficients")
    np.testing.assert_allclose(kept[at], alone.values[shown][at], rtol=1e-6)


def test_wavelengths_of_canonical_spectra(bundle: Bundle, tmp_path: Path) -> None:
    files = stars(tmp_path / "a")
    one = completed(bundle, files, ("all", "336-500"), tmp_path / "1.parquet")
    red = completed(bundle, files, ("rp", "bp"), tmp_path / "2.parquet")
    assert np.isfinite(real_stars.stacked(one, "bp_coefficients")).all()
    # RP is read completely, BP in part: RP's coefficients are those of RP alone.
    rp = [real_stars.stacked(table, "rp_coefficients") for table in (one, red)]
    np.testing.assert_allclose(*rp, rtol=1e-6)
    # The flux that was read stays, to the spectra's errors; the rest is of random weights.
    design = designs()["both"][0]
    table = pq.read_table(files.spectra[0])
    flux = [
        np.concatenate([real_stars.stacked(x, f"{b}_coefficients") for b in BANDS], axis=1)
        @ design.T for x in (one, table)
    ]  # fmt: skip
    off = np.abs(flux[0] / flux[1] - 1)
    assert np.median(off[:, 90:140]) < 0.1  # 516 to 614 nm
    assert np.median(off[:, 90:140]) < 0.3 * np.median(off[:, 5:60])


def test_a_magnitude_of_both_bands_is_said(bundle: Bundle, tmp_path: Path) -> None:
    files = StarFiles(stars(tmp_path / "a").spectra)
    output = SpectraOutput(tmp_path / "out.parquet")
    done = inpaint(files, InpaintRequest.of("rp", "bp"), output, Predictor(bundle))
    assert done.synthetic == N
    assert f"G magnitude of {N} stars computed from both bands" in done.lines()[1]
    done = inpaint(files, InpaintRequest.of("all", "missing"), output, Predictor(bundle))
    assert done.synthetic == 0


def test_generated_spectra_are_canonical_with_flux_by_the_operators(
    bundle: Bundle, tmp_path: Path
) -> None:
    output, flux = tmp_path / "star.parquet", tmp_path / "flux.parquet"
    labels = {"teff": 4700.0, "logg": 2.5, "m_h": 0.0}
    lines = make_spectra(
        SpectraRequest(labels, output=output, flux=flux, distance=2.0, draws=16), bundle
    )
    assert "coefficient covariances from 16 Monte Carlo draws" in lines
    table = pq.read_table(output)
    assert table["basis_id"].to_pylist() == [canonical.BASIS_ID]
    k = np.concatenate([real_stars.stacked(table, f"{b}_coefficients")[0] for b in BANDS])
    assert (k[~measured()] == 0).all()
    assert (k[measured()] != 0).all()
    design = designs()["both"][0]
    np.testing.assert_allclose(
        pq.read_table(flux)["flux"].to_numpy(), design @ k, rtol=1e-9, atol=1e-9 * design.max()
    )
    pairs = real_stars.stacked(table, "bp_coefficient_correlations")
    assert np.abs(pairs).max() > 0.01
