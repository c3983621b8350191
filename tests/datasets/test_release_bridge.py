"""A bridge learned from stars in two releases, on a made-up release in a rotated basis."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.bundles import tiny_bundle
from support.releases import (
    PHOTOMETRY,
    crosswalk,
    denoised,
    design_file,
    observed,
    own_file,
    rotated,
)
from support.xp_files import parquet_bytes, put, real

from catalogproc.cluster.plan import make_plan
from catalogproc.cluster.spec import RunSpec
from catalogproc.datasets.release_bridge import PairFiles, check, fit, read_pairs
from catalogproc.errors import InputError, ReleaseError
from catalogproc.features import bridge_fit, canonical
from catalogproc.features.bridge import load_bridged, read_bridge, term_values
from catalogproc.features.bridge_fit import fit_bridge
from catalogproc.features.canonical_tables import columns, measured
from catalogproc.features.release_files import add_release
from catalogproc.flags import load_flags, load_input_flags
from catalogproc.inference.engine import Engine
from catalogproc.inference.process_chunk import process_chunk
from catalogproc.job import Job
from catalogproc.network.bundle import load_bundle
from catalogproc.release import Release, load_release
from catalogproc.rundir.provenance import provenance
from catalogproc.vocabulary import BANDS, load_vocabulary

PAIRS = 1000


@dataclass(frozen=True)
class Fitted:
    """Spectra of 1,500 stars in both releases, and a bridge fitted to 1,000 of them."""

    folder: Path
    files: PairFiles
    others: PairFiles
    bridge: Path
    lines: tuple[str, ...]

    def canonical(self, release: Release, stars: slice) -> canonical.CanonicalSpectra:
        """Canonical coefficients of the new release's spectra."""
        table = pq.read_table(self.folder / "new.parquet").slice(stars.start, 500)
        return canonical.from_coefficients(
            arrays(table, "coefficients"), arrays(table, "coefficient_errors"), release=release
        )


def arrays(table: pa.Table, name: str) -> dict[str, np.ndarray]:
    return {band: np.array(table[f"{band}_{name}"].to_pylist(), np.float64) for band in BANDS}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    folder = tmp_path_factory.mktemp("bridge")
    truth = denoised(real(1500))
    old, new = observed(truth, seed=1), rotated(truth, noise=0.7, seed=2)
    # Half of the identifiers change, and rows come in another order.
    ids = old["source_id"].to_numpy()
    new_ids = np.where(np.arange(1500) % 2, ids, ids + 7)
    new = new.set_column(0, "source_id", pa.array(new_ids))
    put(folder, "new.parquet", parquet_bytes(new))
    put(folder, "link.parquet", parquet_bytes(crosswalk(ids, new_ids)))
    order = np.random.default_rng(3).permutation(PAIRS)
    first = put(folder, "first.parquet", parquet_bytes(old.slice(0, PAIRS).take(order)))
    rest = put(folder, "rest.parquet", parquet_bytes(old.slice(PAIRS)))
    release = load_release(own_file(folder, PHOTOMETRY))
    files = PairFiles((folder / "new.parquet",), (first,), folder / "link.parquet", release)
    report = fit(files, folder / "bridge.toml")
    others = replace(files, target=(rest,))
    return Fitted(folder, files, others, folder / "bridge.toml", tuple(report.lines()))


def test_pairs_are_matched_by_the_crosswalk_one_to_one(fitted: Fitted) -> None:
    pairs, lines = read_pairs(fitted.files)
    assert len(pairs) >= PAIRS - 2  # of one the faint BP is below 0
    assert "1,000 stars of both releases" in lines[0]
    exact = add_release([design_file(fitted.folder)], fitted.folder / "exact.toml",
                        str(fitted.folder / "own.toml")).release  # fmt: skip
    made = canonical.from_coefficients(pairs.coefficients, pairs.errors, release=exact)
    # The same stars: their first coefficients agree to a few errors.
    for band in BANDS:
        z = (made.values[band] - pairs.values[band])[:, 0] / pairs.value_errors[band][:, 0]
        assert np.percentile(np.abs(z), 99) < 6
    without = replace(fitted.files, crosswalk=None)
    stayed = len(read_pairs(without)[0])  # where identifiers did not change
    assert stayed == pytest.approx(PAIRS // 2, abs=2)


def test_a_thousand_pairs_are_as_good_as_the_matrices(fitted: Fitted) -> None:
    exact = load_release(
        add_release([design_file(fitted.folder)], fitted.folder / "same.toml",
                    str(fitted.folder / "own.toml")).path
    )  # fmt: skip
    rest = slice(PAIRS, 1500)
    wanted = fitted.canonical(exact, rest)
    found = fitted.canonical(load_bridged(fitted.bridge), rest)
    true = arrays(denoised(real(1500)).slice(PAIRS), "coefficients")
    for band in BANDS:
        used = measured()[columns(band)] & (np.arange(55) < 30)
        sigma = wanted.errors[band][:, used]
        scatter = {
            name: np.sqrt(np.mean(np.square((made.values[band] - true[band])[:, used] / sigma)))
            for name, made in (("matrices", wanted), ("bridge", found))
        }
        # No farther from the truth than with the matrices, as some noise is not followed.
        assert scatter["bridge"] < 1.05 * scatter["matrices"]
        assert scatter["matrices"] == pytest.approx(1.0, abs=0.1)
        # Errors are stated as with the matrices, and a floor added to them.
        ratio = found.errors[band][:, used] / sigma
        assert 0.9 < np.median(ratio) < 1.3
        z = (found.values[band] - true[band])[:, used] / found.errors[band][:, used]
        assert 0.6 < np.sqrt(np.mean(z**2)) < 1.1
        number, same = found.relevant_numbers()[band], wanted.relevant_numbers()[band]
        assert abs(np.median(number) - np.median(same)) <= 1
        assert np.mean(np.abs(number - same) <= 3) > 0.65
    z = (found.values["bp"] - wanted.values["bp"])[:, 0] / wanted.errors["bp"][:, 0]
    assert abs(np.median(z)) < 0.3


def test_a_term_of_colour_is_kept_where_held_out_pairs_say_so(
    fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not any("term of" in line for line in fitted.lines)
    pairs, _ = read_pairs(fitted.files)
    joined = np.concatenate([pairs.values[band] for band in BANDS], axis=1)
    colour = term_values(joined)["colour"]
    z = np.clip((colour - colour.mean()) / colour.std(), -2.0, 2.0)
    # A release whose BP is larger for blue and for red stars, and RP smaller: no linear map.
    factor = {"bp": 1.0 + 0.03 * z**2, "rp": 1.0 - 0.03 * z**2}
    bent = {band: x * factor[band][:, None] for band, x in pairs.coefficients.items()}
    made = fit_bridge(replace(pairs, coefficients=bent))
    assert "colour" in made.maps["both"].terms
    assert any("term of colour" in line for line in made.lines)
    monkeypatch.setattr(bridge_fit, "TERMS", ())
    without = fit_bridge(replace(pairs, coefficients=bent))
    assert made.residuals["both"] < 0.95 * without.residuals["both"]
    both = np.concatenate([bent[band] for band in BANDS], axis=1)
    ratio = [one.maps["both"].values(both)[:, 0] / joined[:, 0] for one in (made, without)]
    assert np.std(ratio[0]) < np.std(ratio[1]) < 0.03


def test_other_pairs_check_it(fitted: Fitted) -> None:
    report = check(fitted.bridge, fitted.others)
    assert report.facts["pairs"] == 500
    for band in BANDS:
        assert 0.7 < report.facts["residuals"][band]["rms"] < 1.1
        assert report.facts["residuals"][band]["outliers"] < 0.002
    # A bridge that is wrong is told: fitted to spectra of other stars.
    shuffled = pq.read_table(fitted.folder / "rest.parquet")
    ids = shuffled["source_id"].to_numpy()
    rolled = shuffled.set_column(0, "source_id", pa.array(np.roll(ids, 1)))
    wrong = put(fitted.folder, "wrong.parquet", parquet_bytes(rolled))
    told = check(fitted.bridge, replace(fitted.others, target=(wrong,)))
    assert told.facts["residuals"]["bp"]["rms"] > 5


def test_one_band_has_a_map_of_its_own(fitted: Fitted) -> None:
    table = rotated(denoised(real(1500)).slice(PAIRS), noise=0.7, seed=5)
    values, errors = arrays(table, "coefficients"), arrays(table, "coefficient_errors")
    release = load_bridged(fitted.bridge)
    alone = {"bp": np.full_like(values["bp"], np.nan), "rp": values["rp"]}
    found = canonical.from_coefficients(alone, errors, release=release)
    other = canonical.from_coefficients(alone | {"bp": alone["bp"] * 2}, errors, release=release)
    assert np.isnan(found.values["bp"]).all()
    np.testing.assert_array_equal(found.values["rp"], other.values["rp"])
    whole = canonical.from_coefficients(values, errors, release=release)
    z = (found.values["rp"] - whole.values["rp"])[:, :10] / whole.errors["rp"][:, :10]
    assert np.median(np.abs(z)) < 3


def test_a_star_does_not_depend_on_its_neighbours(fitted: Fitted) -> None:
    release = load_bridged(fitted.bridge)
    table = pq.read_table(fitted.folder / "new.parquet").slice(0, 40)
    values, errors = arrays(table, "coefficients"), arrays(table, "coefficient_errors")
    every = canonical.from_coefficients(values, errors, release=release)
    one = canonical.from_coefficients(
        {band: x[7:8] for band, x in values.items()},
        {band: x[7:8] for band, x in errors.items()}, release=release,
    )  # fmt: skip
    for band in BANDS:
        np.testing.assert_array_equal(one.values[band][0], every.values[band][7])
        np.testing.assert_array_equal(one.errors[band][0], every.errors[band][7])


def test_a_run_by_a_bridge_says_so_everywhere(fitted: Fitted, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "model", load_vocabulary(basis="canonical"))
    job = tmp_path / "job.toml"
    job.write_text("kind = 'run'\npropagation = 'first_order'\nlabels = ['teff']\n")
    spectra = put(tmp_path, "few.parquet", parquet_bytes(
        pq.read_table(fitted.folder / "new.parquet").slice(PAIRS, 30)
    ))  # fmt: skip
    spec = RunSpec(spectra, tmp_path / "out", model=bundle.path, job=job, bridge=fitted.bridge)
    plan = make_plan(spec)
    (chunk,) = plan.chunks
    receipt = process_chunk(Engine(plan.bundle, plan.job), chunk, None, tmp_path / "out")
    part = pq.read_table(tmp_path / "out" / receipt.catalog_part)
    bit = load_input_flags()["BRIDGED"].value
    assert part.num_rows + receipt.rows_rejected == 30
    assert (part["input_flags"].to_numpy() & bit > 0).all()
    bridge = load_bridged(fitted.bridge).bridge
    assert bridge is not None
    assert plan.identity.release["bridge"] == vars(bridge)
    assert (bridge.pairs, bridge.learned_from) == (len(read_pairs(fitted.files)[0]), "dr3")
    assert 0.5 < bridge.residuals < 1.3
    assert part.schema.metadata[b"release_bridge"] == bridge.sha256.encode()
    assert bridge.sha256 in provenance(plan.identity, [receipt]).serialize(format="json")
    # Through the design matrices no star has the flag, and without either they are refused.
    with pytest.raises(ReleaseError, match="bridge fit"):
        make_plan(replace(spec, bridge=None, release=fitted.folder / "own.toml"))
    with pytest.raises(ReleaseError, match="no bridge"):
        make_plan(replace(spec, bridge=fitted.folder / "own.toml"))
    with pytest.raises(ReleaseError, match="for spectra of another release"):
        make_plan(replace(spec, release="dr3"))
    again = make_plan(replace(spec, release=fitted.folder / "own.toml"))
    assert again.identity.hash == plan.identity.hash


def test_what_cannot_be_a_bridge_is_refused(fitted: Fitted, tmp_path: Path) -> None:
    few = put(tmp_path, "few.parquet", parquet_bytes(
        pq.read_table(fitted.folder / "first.parquet").slice(0, 50)
    ))  # fmt: skip
    with pytest.raises(ReleaseError, match=r"too few stars(.|\n)*200(.|\n)*found: 50"):
        fit(replace(fitted.files, target=(few,)), tmp_path / "a.toml")
    with pytest.raises(ReleaseError, match=r"not those of Gaia DR3(.|\n)*wrong_length"):
        fit(replace(fitted.files, target=fitted.files.source), tmp_path / "a.toml")
    wrong = put(tmp_path, "wrong.parquet", parquet_bytes(pa.table({"source_id": [1]})))
    with pytest.raises(InputError, match=r"lacks a column(.|\n)*dr3_neighbourhood"):
        fit(replace(fitted.files, crosswalk=wrong), tmp_path / "a.toml")
    assert not (tmp_path / "a.toml").exists()
    moved = tmp_path / "moved.toml"
    moved.write_bytes(fitted.bridge.read_bytes())
    read_bridge.cache_clear()
    with pytest.raises(ReleaseError, match="bridge of Gaia of tests are missing"):
        read_bridge(load_release(moved))
    (tmp_path / "bridge.npz").write_bytes(b"other")
    with pytest.raises(ReleaseError, match="not the one that Gaia of tests names"):
        read_bridge(load_release(moved))


def test_as_many_stars_have_a_short_signal_as_with_matrices_and_correlations(
    fitted: Fitted,
) -> None:
    """Errors with the published correlations are right; with mean ones noise passes for signal."""
    exact = load_release(
        add_release([design_file(fitted.folder)], fitted.folder / "few.toml",
                    str(fitted.folder / "own.toml")).path
    )  # fmt: skip
    rest = slice(PAIRS, 1500)
    whole = rotated(denoised(real(1500)), noise=0.7, seed=2, correlations=True).slice(PAIRS)
    known = canonical.from_coefficients(
        arrays(whole, "coefficients"), arrays(whole, "coefficient_errors"),
        arrays(whole, "coefficient_correlations"), release=exact,
    )  # fmt: skip
    made = {
        "correlations": known,
        "mean": fitted.canonical(exact, rest),
        "bridge": fitted.canonical(load_bridged(fitted.bridge), rest),
    }
    true = arrays(denoised(real(1500)).slice(PAIRS), "coefficients")
    short, scatter = {}, {}
    for name, one in made.items():
        numbers = one.relevant_numbers()
        short[name] = np.mean(numbers["bp"] + numbers["rp"] < 12)
        z = (one.values["bp"] - true["bp"])[:, 10:40] / one.errors["bp"][:, 10:40]
        scatter[name] = np.sqrt(np.mean(z**2))
    assert abs(short["bridge"] - short["correlations"]) < 0.04
    assert short["mean"] < short["correlations"] - 0.04
    assert 1.0 < scatter["correlations"] < scatter["mean"]


@pytest.mark.slow
def test_answers_by_a_bridge_are_those_by_matrices(fitted: Fitted) -> None:
    bundle = load_bundle("default")
    if bundle.vocabulary.basis != "canonical":
        pytest.skip("the default model reads the coefficients of the archive")
    labels = ("teff", "logg", "m_h", "mass", "log_age")
    job = Job("bridge", labels=labels, inputs=("bprp",), inflate_errors=False, correlations=True)
    exact = add_release([design_file(fitted.folder)], fitted.folder / "labels.toml",
                        str(fitted.folder / "own.toml")).release  # fmt: skip
    moved: dict[str, list[float]] = {flag.name: [] for flag in load_flags().flags}
    for seed in (2, 12, 22):
        table = rotated(denoised(real(1500)), noise=0.7, seed=seed, correlations=True).slice(PAIRS)
        (batch,) = table.combine_chunks().to_batches()
        wanted, found = (
            Engine(bundle.for_release(release), job).process(batch)
            for release in (exact, load_bridged(fitted.bridge))
        )
        for label in ("teff", "logg", "m_h", "mass", "age"):
            shift = found[label].to_numpy() - wanted[label].to_numpy()
            median = np.nanmedian(np.abs(shift) / wanted[f"e_{label}"].to_numpy())
            print(f"{label}: {median:.3f} sigma")
            assert median < 0.3
        for flag in load_flags().flags:
            raised = [np.mean(one["quality_flags"].to_numpy() & flag.value > 0)
                      for one in (wanted, found)]  # fmt: skip
            moved[flag.name].append(raised[1] - raised[0])
    # Wanted are 3 points; 500 stars know a difference to 2.
    for name, changes in moved.items():
        print(f"{name}: {100 * np.mean(changes):+.1f} points")
        assert abs(np.mean(changes)) < 0.05, name
