"""A network with new tokens predicts the old ones as before, and can be fine-tuned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.bundles import tiny_bundle

from catalogproc.datasets.star_table import StarTable
from catalogproc.errors import BundleError, ResumeError
from catalogproc.network.bundle import Bundle, Domain, ErrorScaling, Standardisation
from catalogproc.network.bundle_writer import BundleContent, write_bundle
from catalogproc.network.packed_tokens import PackedTokens
from catalogproc.network.shape import Shape
from catalogproc.network.star_tokens import StarTokens
from catalogproc.network.transformer import Transformer
from catalogproc.training.checkpoint import read_curve
from catalogproc.training.config import Settings
from catalogproc.training.token_sampling import TrainingStars
from catalogproc.training.trainer import Trained, Trainer
from catalogproc.training.vocabulary_extension import (
    extended_errors,
    extended_network,
    extended_scales,
    extended_shape,
    extended_vocabulary,
)
from catalogproc.vocabulary import Token, Vocabulary, load_vocabulary

SHIPPED = load_vocabulary()
NEW = ("mass", "log_age", "alpha_m", "rc_prob")


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model with the tokens of Leung & Bovy's."""
    full = tiny_bundle(tmp_path_factory.mktemp("full"))
    old = Vocabulary(tuple(token for token in SHIPPED.tokens if token.name not in NEW))
    count = len(old)
    assert old.names == SHIPPED.names[:count]
    network = full.network()
    small = Transformer(replace(full.shape, tokens=count))
    state = {
        name: value[: count + 1] if name in ("weight", "bias") else value
        for name, value in network.state_dict().items()
    }
    small.load_state_dict(state)
    random = np.random.default_rng(3)
    scales, domain = full.standardisation, full.domain
    center, scale = scales.center[:count], scales.scale[:count]
    content = BundleContent(
        name="old",
        description="the tokens of Leung & Bovy",
        network=small.eval(),
        vocabulary=old,
        standardisation=Standardisation(center, scale),
        domain=Domain(domain.low[:count], domain.high[:count]),
        training={"data": "none"},
        check_tokens=StarTokens.typical(center + scale * random.normal(size=(2, count))),
        check_labels=["teff", "logg"],
    )
    return write_bundle(tmp_path_factory.mktemp("old"), content)


def test_old_tokens_keep_their_numbers(parent: Bundle) -> None:
    vocabulary = extended_vocabulary(parent.vocabulary, SHIPPED)
    assert vocabulary.names == (*parent.vocabulary.names, *NEW)
    assert extended_vocabulary(SHIPPED, SHIPPED).names == SHIPPED.names
    turned = Vocabulary(
        tuple(replace(t, number=k) for k, t in enumerate(reversed(SHIPPED.tokens), 1))
    )
    assert extended_vocabulary(turned, SHIPPED).names == turned.names


def test_a_token_with_another_meaning_is_refused(parent: Bundle) -> None:
    other = [replace(t, unit="mag") if t.name == "teff" else t for t in SHIPPED.tokens]
    with pytest.raises(BundleError, match=r"has another meaning(.|\n)*where: teff"):
        extended_vocabulary(parent.vocabulary, Vocabulary(tuple(other)))


def test_old_tokens_have_the_same_predictions_bit_for_bit(parent: Bundle) -> None:
    vocabulary = extended_vocabulary(parent.vocabulary, SHIPPED)
    shape = replace(parent.shape, tokens=len(vocabulary))
    network = extended_network(parent, shape, seed=4).eval()
    old = parent.network()
    random = np.random.default_rng(1)
    count = len(parent.vocabulary)
    ids = torch.tensor(np.array([random.permutation(count)[:40] + 1 for _ in range(16)]))
    values = torch.tensor(random.normal(size=(16, 40))).float()
    requests = torch.arange(1, count + 1)
    with torch.inference_mode():
        for one, other in zip(
            network(PackedTokens(ids, values), requests),
            old(PackedTokens(ids, values), requests),
            strict=True,
        ):
            assert torch.equal(one, other)
    again = extended_network(parent, shape, seed=4)
    other = extended_network(parent, shape, seed=5)
    assert torch.equal(again.weight, network.weight)
    assert (other.weight[count + 1 :] != network.weight[count + 1 :]).all()


def test_old_tokens_keep_their_scales_and_new_ones_get_theirs(parent: Bundle) -> None:
    count, size = len(parent.vocabulary), len(SHIPPED)
    low, high = np.full(size, -7.0), np.full(size, 7.0)
    low[3] = high[3] = np.nan
    fitted = Standardisation(np.full(size, 5.0), np.full(size, 6.0))
    scales, domain = extended_scales(parent, fitted, Domain(low, high))
    assert (scales.center[:count] == parent.standardisation.center).all()
    assert (scales.scale[:count] == parent.standardisation.scale).all()
    assert (scales.center[count:] == 5.0).all()
    assert domain.low[3] == parent.domain.low[3]
    assert domain.low[4] == -7.0


def test_a_token_that_no_star_of_the_first_training_had_gets_the_scales_of_the_second(
    parent: Bundle,
) -> None:
    column = parent.vocabulary.column("logebv")
    low = parent.domain.low.copy()
    low[column] = np.nan
    unseen = replace(parent, domain=replace(parent.domain, low=low))
    size = len(SHIPPED)
    fitted = Standardisation(np.full(size, 5.0), np.full(size, 6.0))
    scales, _ = extended_scales(unseen, fitted, Domain(np.full(size, -7.0), np.full(size, 7.0)))
    assert (scales.center[column], scales.scale[column]) == (5.0, 6.0)
    assert scales.center[0] == parent.standardisation.center[0]
    errors = ErrorScaling(*(np.full(size, x) for x in (-1.0, 2.0, -3.0, 4.0)))
    old = ErrorScaling(*(np.full(len(low), x) for x in (0.0, 1.0, 0.0, 0.0)))
    found = extended_errors(replace(unseen, error_scaling=old), errors)
    assert (found.center[column], found.scale[column]) == (-1.0, 2.0)
    assert (found.low[0], found.high[0]) == (0.0, 0.0)


# --- fine-tuning, and the end of a training by validation --------------------------------------

SHAPE = Shape(6, 8, ((2, 16),), ((2, 16),), (16,), dropout=0.0)
PLAIN = Standardisation(np.zeros(6), np.ones(6))


def table(seed: int, size: int = 24) -> StarTable:
    random = np.random.default_rng(seed)
    values = random.normal(size=(size, 1)) + random.normal(size=(size, 6))
    return StarTable(np.arange(size), values, np.full((size, 6), 0.1))


SETTINGS = Settings(steps=400, batch=64, rate=2e-2, restart_steps=400, min_tokens=2,
                    max_tokens=5, targets=3, repeat=0.0, weight_decay=0.0, report_steps=10,
                    checkpoint_steps=10, patience_steps=40)  # fmt: skip


def fit(
    folder: Path,
    settings: Settings,
    initial: Shape | Transformer = SHAPE,
    *,
    validated: bool = True,
    resume: bool = False,
) -> Trained:
    validation = table(2, 400) if validated else None
    stars = TrainingStars(table(1).sample, PLAIN, validation=validation)
    return Trainer(initial, stars, settings).fit(folder, resume=resume)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Such small networks are fastest on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_new_tokens_are_learned_and_old_ones_not_forgotten(tmp_path: Path) -> None:
    """A network that knows four of six tokens is fine-tuned on all six: it predicts the four as
    well as before, and the two nearly as well as possible."""
    vocabulary = Vocabulary(
        tuple(Token(k + 1, f"t{k}", "label", "", "identity", f"t{k}", "") for k in range(6))
    )
    old = Vocabulary(vocabulary.tokens[:4])

    def stars(count: int):  # type: ignore[no-untyped-def]
        def draw(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
            random = np.random.default_rng(seed)
            values = random.normal(size=(n, 1)) + 0.5 * random.normal(size=(n, 6))
            values[:, 4:] *= -1  # so that the relations among the old four do not apply
            return values[:, :count], np.zeros((n, count))

        return draw

    plan = replace(
        SETTINGS,
        steps=250,
        batch=256,
        rate=1e-2,
        restart_steps=250,
        repeat=0.0,
        min_tokens=3,
        report_steps=50,
        checkpoint_steps=250,
        patience_steps=0,
    )
    small, four = replace(SHAPE, tokens=4), Standardisation(np.zeros(4), np.ones(4))
    old_stars, new_stars = TrainingStars(stars(4), four), TrainingStars(stars(6), PLAIN)
    network = Trainer(small, old_stars, plan).fit(tmp_path / "old").network
    content = BundleContent(
        name="four", description="", network=network, vocabulary=old,
        standardisation=four, domain=Domain(np.full(4, -5.0), np.full(4, 5.0)), training={},
        check_tokens=StarTokens.exact(np.zeros((1, 4))), check_labels=["t0"],
    )  # fmt: skip
    bundle = write_bundle(tmp_path / "bundle", content)
    start = extended_network(bundle, replace(bundle.shape, tokens=len(vocabulary)), 1)
    tuned = Trainer(start, new_stars, plan).fit(tmp_path / "new").network
    values = torch.tensor(stars(6)(99, 4000)[0]).float()

    def rms(network: Transformer, requested: int, shown: tuple[int, ...]) -> float:
        ids = torch.tensor([k + 1 for k in shown]).expand(len(values), -1)
        with torch.inference_mode():
            mean, _ = network.eval()(
                PackedTokens(ids, values[:, list(shown)]), torch.tensor([requested + 1])
            )
        return float((mean[:, 0] - values[:, requested]).square().mean().sqrt())

    best = (0.25 + 1 / (1 + 3 / 0.25)) ** 0.5  # noise of the token, and of z from three others
    assert rms(network, 0, (1, 2, 3)) < 1.1 * best
    assert rms(start, 0, (1, 2, 3)) == pytest.approx(rms(network, 0, (1, 2, 3)), rel=1e-6)
    assert rms(tuned, 0, (1, 2, 3)) < 1.1 * best
    assert rms(start, 5, (1, 2, 3)) > 1.3 * best
    assert rms(tuned, 5, (1, 2, 3)) < 1.15 * best
    assert rms(tuned, 1, (0, 4, 5)) < 1.15 * best


def test_a_training_ends_without_progress_and_returns_the_best_weights(tmp_path: Path) -> None:
    """24 stars are overfitted at once: the validation loss then rises."""
    trained = fit(tmp_path / "a", SETTINGS)
    losses = {row["step"]: row["validation_loss"] for row in trained.history}
    best = min(losses, key=losses.__getitem__)
    assert max(losses) == best + 40 < 400
    to_best = replace(SETTINGS, steps=int(best), patience_steps=0)
    stopped = fit(tmp_path / "b", to_best)
    for one, other in zip(trained.network.parameters(), stopped.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_resumed_training_ends_at_the_same_step(tmp_path: Path) -> None:
    uninterrupted = fit(tmp_path / "a", SETTINGS)
    end = int(uninterrupted.history[-1]["step"])
    for steps in (end - 30, end - 10, 400):
        resumed = fit(tmp_path / "b", replace(SETTINGS, steps=steps), resume=True)
    assert [row["step"] for row in read_curve(tmp_path / "b")][-1] == end
    pairs = zip(uninterrupted.network.parameters(), resumed.network.parameters(), strict=True)
    for one, other in pairs:
        assert torch.equal(one, other)


def test_fine_tuning_starts_from_the_given_weights_and_they_are_checked(tmp_path: Path) -> None:
    brief = replace(SETTINGS, steps=10, patience_steps=0)
    first = fit(tmp_path / "a", brief, validated=False).network
    frozen = replace(brief, steps=5, rate=1e-30, minimum_rate=1e-30)
    second = fit(tmp_path / "b", frozen, first, validated=False).network
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    with pytest.raises(ResumeError, match="start"):
        fit(tmp_path / "b", frozen, validated=False, resume=True)


def test_a_fine_tuned_model_may_get_dropout_and_predicts_the_same(tmp_path: Path) -> None:
    base = tiny_bundle(tmp_path / "base")
    shape = extended_shape({"dropout": 0.2}, base.vocabulary, base)
    assert shape.dropout == 0.2
    network = extended_network(base, shape, seed=1).eval()
    for name, value in network.state_dict().items():
        assert torch.equal(value, base.network().state_dict()[name]), name
