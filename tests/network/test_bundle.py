"""A bundle is read exactly as it was written, or refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.reference_network import reference_prediction

from catalogproc.errors import BundleError
from catalogproc.network import bundle as module
from catalogproc.network import bundle_writer
from catalogproc.network.bundle import (
    Domain,
    Standardisation,
    load_bundle,
    shipped_bundles,
)
from catalogproc.network.bundle_writer import BundleContent, write_bundle
from catalogproc.network.shape import Shape
from catalogproc.network.star_tokens import StarTokens
from catalogproc.network.transformer import Transformer
from catalogproc.vocabulary import Vocabulary, load_vocabulary

RNG = np.random.default_rng(7)
VOCABULARY = load_vocabulary()
V = len(VOCABULARY)
SHAPE = Shape(V, 16, ((4, 24),), ((4, 32), (2, 16)), (24, 12), dropout=0.1)


def content(**changes):
    """The parts of a bundle. One star lacks half of its tokens, one all of them."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = Transformer(SHAPE)
    center, scale = RNG.normal(size=V), 10 ** RNG.uniform(-4, 3, V)
    low, high = center - 3 * scale, center + 3 * scale
    low[5] = high[5] = np.nan
    stars = center + scale * RNG.normal(size=(3, V))
    stars[1, ::2] = np.nan
    stars[2] = np.nan
    parts = {
        "name": "for tests",
        "description": 'random weights: "quoted", ünïcode, \\ and\nlines',
        "network": network,
        "vocabulary": VOCABULARY,
        "standardisation": Standardisation(center, scale),
        "domain": Domain(low, high),
        "training": {"data": "none", "seed": 3, "rates": [0.1, 1e-300], "nested": {"a": True}},
        "check_tokens": StarTokens.typical(stars),
        "check_labels": ["teff", "mass", "rp7"],
    }
    return BundleContent(**(parts | changes))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    given = content()
    return given, write_bundle(tmp_path_factory.mktemp("bundle") / "one", given)


@pytest.fixture
def copy(written, tmp_path):
    """A copy of the bundle's folder, to be damaged."""
    return shutil.copytree(written[1].path, tmp_path / "copy")


def test_a_bundle_is_read_as_it_was_written_bit_for_bit(written):
    given, bundle = written
    assert bundle.name == given.name
    assert bundle.description == given.description
    assert bundle.vocabulary == VOCABULARY
    assert bundle.shape == SHAPE
    assert bundle.training == given.training
    assert bundle.requestable == VOCABULARY.names
    assert bundle.self_check.labels == ("teff", "mass", "rp7")
    for found, wanted in (
        (bundle.standardisation.center, given.standardisation.center),
        (bundle.standardisation.scale, given.standardisation.scale),
        (bundle.domain.low, given.domain.low),
        (bundle.domain.high, given.domain.high),
    ):
        np.testing.assert_array_equal(found, wanted)
        assert not found.flags.writeable
    np.testing.assert_array_equal(bundle.self_check.tokens.values, given.check_tokens.values)
    loaded = bundle.network()
    assert not loaded.training
    for name, weight in given.network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name


def test_the_stored_predictions_are_those_of_the_reference_network(written):
    given, bundle = written
    weights = {k: v.double().numpy() for k, v in given.network.state_dict().items()}
    columns = VOCABULARY.columns(bundle.self_check.labels)
    center, scale = given.standardisation.center, given.standardisation.scale
    for star, mean, sigma in zip(
        given.check_tokens.values, bundle.self_check.mean, bundle.self_check.sigma, strict=True
    ):
        there = np.flatnonzero(~np.isnan(star))
        tokens = [(column + 1, (star[column] - center[column]) / scale[column]) for column in there]
        z, log_variance = reference_prediction(weights, [4], [4, 2], tokens, columns + 1)
        np.testing.assert_allclose(mean, z * scale[columns] + center[columns], rtol=1e-10)
        np.testing.assert_allclose(sigma, np.exp(log_variance / 2) * scale[columns], rtol=1e-10)


def test_the_hash_depends_on_the_content_and_not_on_the_folder(written, copy, tmp_path):
    given, bundle = written
    assert load_bundle(copy).hash == load_bundle(str(copy)).hash == bundle.hash
    assert write_bundle(tmp_path / "again", given).hash == bundle.hash
    assert write_bundle(tmp_path / "other", replace(given, name="x")).hash != bundle.hash
    with torch.no_grad():
        other = Transformer(SHAPE)
    assert write_bundle(tmp_path / "weights", replace(given, network=other)).hash != bundle.hash


@pytest.mark.parametrize("file", ["bundle.toml", "weights.safetensors"])
def test_a_changed_byte_is_refused_and_the_file_is_named(copy, file):
    path = copy / file
    good = path.read_bytes()
    # Every byte of the first line, which holds the hash, and others everywhere.
    places = {*range(74), *RNG.integers(len(good), size=60).tolist(), len(good) - 1}
    for place in sorted(places):
        bad = bytearray(good)
        bad[place] ^= 1 << int(RNG.integers(8))
        path.write_bytes(bad)
        with pytest.raises(BundleError, match=rf"{file}|another format"):
            load_bundle(copy)
    for bad in (good + b"\n", good[:-1], b"\n" + good, b""):
        path.write_bytes(bad)
        with pytest.raises(BundleError, match=file):
            load_bundle(copy)
    path.write_bytes(good)
    load_bundle(copy)


def test_weights_of_another_bundle_are_refused(written, copy, tmp_path):
    with torch.no_grad():
        other = write_bundle(tmp_path / "other", content(network=Transformer(SHAPE)))
    shutil.copy(other.path / "weights.safetensors", copy)
    with pytest.raises(BundleError, match=r"weights\.safetensors was changed"):
        load_bundle(copy)
    (copy / "weights.safetensors").unlink()
    with pytest.raises(BundleError, match=r"cannot be read(.|\n)*weights\.safetensors"):
        load_bundle(copy)


def test_another_format_is_refused(copy):
    path = copy / "bundle.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("format = 1", "format = 2"), "utf-8")
    with pytest.raises(BundleError, match=r"another format\n  wanted: format 1\n  found: format 2"):
        load_bundle(copy)


def test_no_path_is_stored_in_a_bundle(written):
    """So that a bundle cannot refer to files outside of its folder."""
    text = (written[1].path / "bundle.toml").read_text(encoding="utf-8")
    assert "safetensors" not in text
    assert str(written[1].path.parent) not in text
    assert set(tomllib.loads(text)) == {
        *("hash", "format", "name", "description", "weights_sha256", "requestable"),
        *("network", "training", "self_check", "token", "basis", "release"),
    }


@pytest.fixture
def models(written, tmp_path, monkeypatch):
    """A folder of shipped models: one, two, and two is the default."""
    for name in ("one", "two"):
        write_bundle(tmp_path / "model" / name, replace(written[0], name=name))
    (tmp_path / "model" / "DEFAULT").write_text("two\n")
    monkeypatch.setattr(module, "shipped", lambda kind: tmp_path / kind)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "model"


def test_shipped_names_and_default_are_found(models):
    assert shipped_bundles() == ("one", "two")
    assert load_bundle("one").name == "one"
    assert load_bundle("default").name == "two"
    # A folder of the user's that happens to have the name is reached by a path alone.
    shutil.copytree(models / "two", "one")
    assert load_bundle("one").name == "one"
    assert load_bundle("./one").name == "two"


def test_an_unknown_name_is_refused_with_the_shipped_names(models):
    with pytest.raises(BundleError, match=r"no such model\n  wanted: .*one, two\n  found: three"):
        load_bundle("three")
    (models / "DEFAULT").write_text("../model/one\n")
    shutil.copytree(models / "one", "default")
    with pytest.raises(BundleError, match=r"no such model(.|\n)*found: \.\./model/one"):
        load_bundle("default")
    (models / "DEFAULT").unlink()
    with pytest.raises(BundleError, match=r"no such model(.|\n)*found: no .*DEFAULT"):
        load_bundle("default")


def test_a_bundle_is_overwritten_only_with_replace(written, copy):
    given, bundle = written
    (copy / "CARD.md").write_text("a card")
    with pytest.raises(BundleError, match="holds a bundle already"):
        write_bundle(copy, given)
    assert load_bundle(copy).hash == bundle.hash
    assert write_bundle(copy, replace(given, name="new"), replace=True).name == "new"
    assert (copy / "CARD.md").read_text() == "a card"
    assert sorted(path.name for path in copy.iterdir()) == [
        *("CARD.md", "bundle.toml", "weights.safetensors"),
    ]


@pytest.mark.parametrize("last", ["weights.safetensors", "bundle.toml"])
def test_a_crash_while_writing_leaves_no_bundle(written, tmp_path, monkeypatch, last):
    write = bundle_writer.write_atomic

    def crash(path, content):
        if path.name == last:
            path.with_name(f".{path.name}.tmp").write_bytes(content[: len(content) // 2])
            raise OSError("no space left on device")
        return write(path, content)

    monkeypatch.setattr(bundle_writer, "write_atomic", crash)
    with pytest.raises(OSError, match="no space"):
        write_bundle(tmp_path / "new", written[0])
    with pytest.raises(BundleError, match="no such model"):
        load_bundle(tmp_path / "new")


def test_weights_stored_as_float16_are_half_the_size_and_read_as_float32(written, tmp_path):
    given, bundle = written
    half = write_bundle(tmp_path / "half", given, dtype="float16")
    sizes = [(b.path / "weights.safetensors").stat().st_size for b in (half, bundle)]
    assert sizes[0] < 0.6 * sizes[1]
    assert {weight.dtype for weight in half.network().parameters()} == {torch.float32}
    off = np.abs(half.self_check.mean - bundle.self_check.mean) / bundle.self_check.sigma
    assert 0 < off.max() < 0.01


def test_parts_that_do_not_fit_each_other_are_refused(tmp_path):
    shorter = Vocabulary(VOCABULARY.tokens[:-1])
    flat = np.ones(V)
    flat[3] = 0.0
    for fault, changes in {
        "parts of different vocabularies": {"vocabulary": shorter},
        "parts of different vocabularies(.|\n)*check_tokens": {
            "check_tokens": StarTokens.exact(np.ones((2, 3)))
        },
        "labels that the vocabulary lacks(.|\n)*colour": {"check_labels": ["teff", "colour"]},
        "labels that the vocabulary lacks(.|\n)*weight": {"requestable": ["weight"]},
        "no star to check": {"check_tokens": StarTokens.exact(np.ones((0, V)))},
    }.items():
        with pytest.raises(BundleError, match=fault):
            write_bundle(tmp_path / "new", content(**changes))
    with pytest.raises(BundleError, match=r"cannot be standardised(.|\n)*number \[4\]"):
        Standardisation(np.zeros(V), flat)
    with pytest.raises(BundleError, match="same length"):
        Standardisation(np.zeros(V), np.ones(3))
    assert not (tmp_path / "new" / "bundle.toml").exists()


def test_weights_of_another_shape_are_refused_when_loaded(written):
    bundle = replace(written[1], shape=Shape(V, 32))
    with pytest.raises(BundleError, match="do not fit the network"):
        bundle.network()


def test_a_release_with_fewer_coefficients_is_written_and_read(tmp_path):
    """DR4 has 51 BP coefficients: a bundle of 116 tokens."""
    kept = [t for t in VOCABULARY.tokens if not (t.band == "bp" and t.index >= 51)]
    dr4 = Vocabulary(tuple(replace(t, number=n) for n, t in enumerate(kept, start=1)))
    size = len(dr4)
    bundle = write_bundle(
        tmp_path / "dr4",
        content(
            network=Transformer(replace(SHAPE, tokens=size)),
            vocabulary=dr4,
            standardisation=Standardisation(np.zeros(size), np.ones(size)),
            domain=Domain(np.zeros(size), np.ones(size)),
            check_tokens=StarTokens.exact(np.ones((1, size))),
        ),
    )
    assert bundle.vocabulary.coefficients("bp") == 51
    assert bundle.vocabulary == dr4


def test_loading_a_network_imports_no_compiler() -> None:
    """torch imports 800 modules to initialise one parameter that is only to be loaded."""
    words = (
        "import sys; from catalogproc.network.bundle import load_bundle; "
        "load_bundle('tiny').network(); print('sympy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True)
    assert done.stdout.split() == ["False"], done.stderr
