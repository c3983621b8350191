"""A network that learns new words answers old questions as before, and goes on from there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.bundles import tiny_bundle

from catalogproc.datasets.star_table import Table
from catalogproc.errors import BundleError, ResumeError
from catalogproc.network.bundle import Bundle, Domain, Standardisation
from catalogproc.network.bundle_writer import BundleContent, write_bundle
from catalogproc.network.transformer import Shape, Transformer
from catalogproc.training.checkpoint import read_curve
from catalogproc.training.config import Settings
from catalogproc.training.trainer import train
from catalogproc.training.vocabulary_extension import (
    extended_network,
    extended_scales,
    extended_vocabulary,
)
from catalogproc.vocabulary import Token, Vocabulary, load_vocabulary

SHIPPED = load_vocabulary()
NEW = ("mass", "log_age")


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model as Leung & Bovy's: all tokens but mass and age."""
    whole = tiny_bundle(tmp_path_factory.mktemp("whole"))
    old = Vocabulary(tuple(token for token in SHIPPED.tokens if token.name not in NEW))
    count = len(old)
    assert old.names == SHIPPED.names[:count]
    network = whole.network()
    small = Transformer(replace(whole.shape, tokens=count))
    state = {
        name: value[: count + 1] if name in ("weight", "bias") else value
        for name, value in network.state_dict().items()
    }
    small.load_state_dict(state)
    random = np.random.default_rng(3)
    scales, domain = whole.standardisation, whole.domain
    center, scale = scales.center[:count], scales.scale[:count]
    content = BundleContent(
        name="old",
        description="all tokens but mass and age",
        network=small.eval(),
        vocabulary=old,
        standardisation=Standardisation(center, scale),
        domain=Domain(domain.low[:count], domain.high[:count]),
        training={"data": "none"},
        check_values=center + scale * random.normal(size=(2, count)),
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


def test_a_word_of_another_meaning_is_refused(parent: Bundle) -> None:
    other = [replace(t, unit="mag") if t.name == "teff" else t for t in SHIPPED.tokens]
    with pytest.raises(BundleError, match=r"means something else(.|\n)*where: teff"):
        extended_vocabulary(parent.vocabulary, Vocabulary(tuple(other)))


def test_old_questions_get_the_old_answers_to_the_last_bit(parent: Bundle) -> None:
    torch.set_num_threads(1)
    vocabulary = extended_vocabulary(parent.vocabulary, SHIPPED)
    network = extended_network(parent, vocabulary, seed=4).eval()
    old = parent.network()
    random = np.random.default_rng(1)
    count = len(parent.vocabulary)
    ids = torch.tensor(np.array([random.permutation(count)[:40] + 1 for _ in range(16)]))
    values = torch.tensor(random.normal(size=(16, 40))).float()
    requests = torch.arange(1, count + 1)
    with torch.inference_mode():
        for one, other in zip(
            network(ids, values, requests), old(ids, values, requests), strict=True
        ):
            assert torch.equal(one, other)
    again = extended_network(parent, vocabulary, seed=4)
    other = extended_network(parent, vocabulary, seed=5)
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


# --- the training that ends in time ------------------------------------------------------------

SHAPE = Shape(6, 8, ((2, 16),), ((2, 16),), (16,), dropout=0.0)
PLAIN = Standardisation(np.zeros(6), np.ones(6))


def few(seed: int, n: int, size: int = 24) -> Table:
    random = np.random.default_rng(seed)
    values = random.normal(size=(size, 1)) + random.normal(size=(size, 6))
    return Table(np.arange(size), values, np.full((size, 6), 0.1))


SETTINGS = Settings(steps=400, batch=64, rate=2e-2, restart_steps=400, min_tokens=2,
                    max_tokens=5, targets=3, repeat=0.0, weight_decay=0.0, report_steps=5,
                    checkpoint_steps=5, patience_steps=40)  # fmt: skip


def held() -> tuple[np.ndarray, np.ndarray]:
    table = few(2, 0, 400)
    return table.values, table.errors


def test_new_words_are_learned_and_old_ones_not_forgotten(tmp_path: Path) -> None:
    """A network that knows four of six tokens is shown all six: it answers for the four as well
    as before, and for the two about as well as can be, z being known to 1/sqrt(5) of a sigma."""
    vocabulary = Vocabulary(
        tuple(Token(k + 1, f"t{k}", "label", "", "identity", f"t{k}", "") for k in range(6))
    )
    old = Vocabulary(vocabulary.tokens[:4])

    def stars(count: int):  # type: ignore[no-untyped-def]
        def draw(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
            random = np.random.default_rng(seed)
            values = random.normal(size=(n, 1)) + 0.5 * random.normal(size=(n, 6))
            values[:, 4:] *= -1  # what the old four say of each other does not hold for these
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
    network = train(small, four, stars(4), plan, tmp_path / "old").network
    content = BundleContent(
        name="four", description="", network=network, vocabulary=old,
        standardisation=four, domain=Domain(np.full(4, -5.0), np.full(4, 5.0)), training={},
        check_values=np.zeros((1, 4)), check_labels=["t0"],
    )  # fmt: skip
    bundle = write_bundle(tmp_path / "bundle", content)
    start = extended_network(bundle, vocabulary, 1)
    taught = train(SHAPE, PLAIN, stars(6), plan, tmp_path / "new", start=start).network
    values = torch.tensor(stars(6)(99, 4000)[0]).float()

    def miss(network: Transformer, asked: int, shown: tuple[int, ...]) -> float:
        ids = torch.tensor([k + 1 for k in shown]).expand(len(values), -1)
        with torch.inference_mode():
            mean, _ = network.eval()(ids, values[:, list(shown)], torch.tensor([asked + 1]))
        return float((mean[:, 0] - values[:, asked]).square().mean().sqrt())

    best = (0.25 + 1 / (1 + 3 / 0.25)) ** 0.5  # of a token's own noise and of z by three others
    assert miss(network, 0, (1, 2, 3)) < 1.1 * best
    assert miss(start, 0, (1, 2, 3)) == pytest.approx(miss(network, 0, (1, 2, 3)), rel=1e-6)
    assert miss(taught, 0, (1, 2, 3)) < 1.1 * best
    assert miss(start, 5, (1, 2, 3)) > 1.3 * best
    assert miss(taught, 5, (1, 2, 3)) < 1.15 * best
    assert miss(taught, 1, (0, 4, 5)) < 1.15 * best


def test_it_ends_when_validation_does_not_fall_and_gives_the_best(tmp_path: Path) -> None:
    """24 stars are learned by heart at once: the others are then answered ever worse."""
    trained = train(SHAPE, PLAIN, few(1, 0).draw, SETTINGS, tmp_path / "a", validation=held())
    losses = {row["step"]: row["validation_loss"] for row in trained.history}
    best = min(losses, key=losses.__getitem__)
    assert max(losses) == best + 40 < 400
    to_best = replace(SETTINGS, steps=int(best), patience_steps=0)
    there = train(SHAPE, PLAIN, few(1, 0).draw, to_best, tmp_path / "b", validation=held())
    for one, other in zip(trained.network.parameters(), there.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_end_in_time_survives_an_interruption(tmp_path: Path) -> None:
    whole = train(SHAPE, PLAIN, few(1, 0).draw, SETTINGS, tmp_path / "a", validation=held())
    end = int(whole.history[-1]["step"])
    for steps in (end - 30, end - 10, 400):
        again = train(SHAPE, PLAIN, few(1, 0).draw, replace(SETTINGS, steps=steps),
                      tmp_path / "b", validation=held(), resume=True)  # fmt: skip
    assert [row["step"] for row in read_curve(tmp_path / "b")][-1] == end
    for one, other in zip(whole.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_start_is_gone_on_from_and_is_part_of_what_a_training_is(tmp_path: Path) -> None:
    brief = replace(SETTINGS, steps=10, patience_steps=0)
    first = train(SHAPE, PLAIN, few(1, 0).draw, brief, tmp_path / "a").network
    still = replace(brief, steps=5, rate=1e-30, minimum_rate=1e-30)
    second = train(SHAPE, PLAIN, few(1, 0).draw, still, tmp_path / "b", start=first).network
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    with pytest.raises(ResumeError, match="start"):
        train(SHAPE, PLAIN, few(1, 0).draw, still, tmp_path / "b", resume=True)
