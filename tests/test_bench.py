"""The benchmark with very small sizes: every row has a finite figure and is in the tables."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from io import StringIO

import numpy as np
import pytest
import torch
from rich.console import Console
from support.bundles import tiny_bundle
from torch.utils.flop_counter import FlopCounterMode

from bench import cost, gpu, million
from bench.arithmetic import encode, head, keys_and_values, star
from bench.bench import FAMILIES, Figure, markdown, run_family, tables
from bench.compare import compare
from bench.gpu_page import replace_section
from bench.kit import TINY, Kit
from bench.machine import ROOT, describe
from bench.measure import Target, race, seconds, times
from bench.reference import reference_copy
from bench.stages import stored_predictions
from catalogproc.network.packed_tokens import PackedTokens
from catalogproc.network.shape import Shape
from catalogproc.network.transformer import Transformer


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    bundle = tiny_bundle(folder / "model", mixture=("mass", "log_age"))
    return Kit(folder, str(bundle.path), TINY)


@pytest.fixture(scope="module")
def found():
    """Figures of the families that have run."""
    return {}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_row_of_a_family_has_a_finite_figure_or_a_reason(kit, found, name):
    figures = found[name] = run_family(name, kit)
    assert figures
    for figure in figures:
        if figure.value is None:
            assert figure.note.startswith("not measured"), figure
        else:
            assert math.isfinite(figure.value), figure
            assert figure.value > 0, figure
            assert (figure.met is None) == (not figure.target)


def test_the_tables_hold_every_row_and_the_costs(kit, found):
    figures = [figure for name in FAMILIES if name in found for figure in found[name]]
    assert {figure.family for figure in figures} == set(FAMILIES)
    rates = {(figure.family, figure.row): figure.value for figure in figures}
    report = describe() | {
        "model": {"name": kit.bundle.name},
        "rows": [asdict(figure) for figure in figures],
        "cost": cost.report(rates),
    }
    assert json.loads(json.dumps(report)) == report
    console = Console(width=300, file=StringIO())
    for table in tables(report):
        console.print(table)
    console.print(compare(report, report))
    shown, written = console.file.getvalue(), markdown(report)
    for figure in figures:
        assert figure.row in shown
        assert f"| {figure.title}: {figure.row} |" in written
    for item in report["cost"]["bill"]:
        assert item["name"] in shown
        assert item["name"] in written
        if "GPU" not in item["unit"]:
            assert all(value > 0 for value in item["values"].values()), item
    assert not any(name in json.dumps(report) for name in (str(ROOT), kit.folder.name))


def test_stored_predictions_have_the_distributions_of_their_stars(kit):
    engine = stored_predictions(kit)
    tokens = kit.engine.features(kit.spectra_read.slice(0, 5))
    mixtures = engine.predict(tokens).prediction.mixtures
    assert set(mixtures) == {"mass", "log_age"}
    for mixture in mixtures.values():
        assert mixture.means.shape == (5, 2)
        assert mixture.weights.sum(axis=1) == pytest.approx(np.ones(5), abs=1e-12)


def test_rows_of_a_gpu_are_measured_by_the_same_code_on_the_cpu(kit, monkeypatch):
    monkeypatch.setattr(gpu, "run_rate", lambda kit: 7.0)  # the rows of a run have its code
    found = gpu.on_device(replace(kit, sizes=replace(kit.sizes, gpu=24)), "cpu")
    assert [row.name for row in gpu.ROWS] == list(found)
    assert found["run, chunks only"] == 7.0
    for name in ("stars, 64 tokens, 8 labels", "the same in TF32"):
        assert 0 < getattr(found[name], "value", found[name]) < 1e7


def test_the_section_of_a_million_stars_has_the_counts_of_the_run(tmp_path):
    counts = {"rows_read": 3000, "rows_written": 2990, "rows_rejected": 10, "seconds": 2.0}
    (tmp_path / "summary.json").write_text(json.dumps(counts))
    (tmp_path / "run.json").write_text(json.dumps({"model": {"name": "giants"}}))
    (tmp_path / "receipts").mkdir()
    for worker in ("0", "1"):
        receipt = {"worker": worker, "stage_seconds": {"predict": 3.0, "rows": 1.0}}
        (tmp_path / "receipts" / f"{worker}.json").write_text(json.dumps(receipt))
    text = million.section(tmp_path, 1_700_000_000, 0.5)
    assert "3,000 read, 2,990 written, 10 rejected, in 2 s (1,500 stars/s)" in text
    assert "model giants, 2 workers on" in text
    assert "75 % of the workers' time, and a worker at most 1.7 GB" in text
    page = tmp_path / "page.md"
    page.write_text(million.PAGE.read_text())
    replace_section(page, text)
    assert f"\n{text}\n## All spectra" in page.read_text()


def test_without_a_gpu_its_rows_say_so(kit):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    found = gpu.measure(kit)
    assert [row.name for row in gpu.ROWS] == list(found)
    assert {absent.reason for absent in found.values()} == {"not measured: no GPU"}


def test_the_arithmetic_is_what_pytorch_counts():
    """Operations by our formulae against PyTorch's own count."""
    network, n = Transformer(Shape(120)), 3
    ids = torch.arange(1, 34).expand(n, 33)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(PackedTokens(ids, torch.zeros(n, 33)), torch.tensor([111, 112, 113, 116, 117]))
    first = 2 * 128 * 128 * 5  # the first queries of the labels, once per batch
    assert counter.get_total_flops() == pytest.approx(
        n * star(network.shape, 33, 5) + first, rel=1e-6
    )


def test_the_arithmetic_of_the_default_shape():
    """Operations per star, in millions, as computed by hand."""
    shape = Shape(120)
    assert encode(shape, 64) / 1e6 == pytest.approx(71.4, abs=0.05)
    assert keys_and_values(shape, 33) / 1e6 == pytest.approx(6.5, abs=0.05)
    assert head(shape) / 1e6 == pytest.approx(13.4, abs=0.05)
    assert star(shape, 64, 5) / 1e6 == pytest.approx(166, abs=0.6)
    assert star(shape, 33, 5) / 1e6 == pytest.approx(124, abs=0.6)


def test_the_reference_implementation_predicts_the_same(kit):
    network = kit.bundle.network()
    mixture = Shape(
        120, 16, ((4, 24),), ((4, 32), (2, 16)), (24,), reads_errors=True, components=3,
        mixture=(111,), late=(12,),
    )  # fmt: skip
    ids, values = torch.arange(1, 41).reshape(2, 20), torch.randn(2, 20)
    ids[1, 12:] = 0
    requests = [111, 112, 3]
    for ours, errors in ((network, None), (Transformer(mixture).eval(), torch.randn(2, 20))):
        if errors is not None:
            torch.nn.init.normal_(ours.error_weight, std=0.3)
        stars = PackedTokens(ids, values, errors)
        with torch.inference_mode():
            wanted = ours(stars, torch.tensor(requests))
        for encode_again in (False, True):
            theirs = reference_copy(ours).predict(stars, requests, encode_again=encode_again)
            torch.testing.assert_close(theirs, wanted, rtol=1e-4, atol=1e-5)


def test_times_are_taken_after_a_warm_up_and_bounded():
    calls = []
    assert len(times(lambda: calls.append(1), repeats=3)) == 30
    assert len(calls) == 31
    assert 0 < seconds(lambda: sum(range(1000)), repeats=2) < 1
    one, other = race(lambda: sum(range(200_000)), lambda: sum(range(1000)), repeats=3)
    assert one > 5 * other


def test_targets_have_a_direction():
    assert Target(6).met(6.1)
    assert not Target(6).met(5.9)
    assert Target(0.5, at_most=True).met(0.4)
    assert not Target(0.5, at_most=True).met(0.6)


def test_the_slowest_part_of_a_run_is_named():
    rates = {
        ("stages", "predict, 33 tokens"): 250.0,
        ("stages", "all but the model, spectra only"): 50_000.0,
        ("gpu", "stars, 33 tokens, 7 labels"): 1_600_000.0,
    }
    bill = {item.name: item for item in cost.bill(rates)}
    for release, n in (("Gaia DR3", 220e6), ("Gaia DR4", 1e9)):
        value = {name: item.values[release] for name, item in bill.items()}
        assert value["of which the network"] == pytest.approx(n / 250 / 3600)
        assert value["run on one GPU, the network"] == pytest.approx(n / 1.6e6 / 3600)
        both = value["of which the network"] + value["of which all but the network"]
        assert value["run without a GPU"] == pytest.approx(both)
        assert value["run on a node of 64 such cores"] == pytest.approx(both / 64)
        assert value["catalog written"] is None
    named = list(cost.bottleneck(rates).values())
    assert named[0].startswith("the network")
    assert "200.0 times" in named[0]
    assert named[1].startswith("reading")
    assert "2.0 times" in named[1]
    assert set(cost.bottleneck({}).values()) == {"not measured"}
    read = cost.bottleneck(rates | {("stages", "input a star"): 1000.0})
    assert read["storage, for one GPU"].startswith("1,600 MB/s")


def test_a_family_must_give_each_row_a_figure(kit, monkeypatch):
    monkeypatch.setattr(gpu, "measure", lambda kit: {})
    with pytest.raises(ValueError, match="gpu: rows"):
        run_family("gpu", kit)
    assert Figure.__dataclass_params__.frozen
