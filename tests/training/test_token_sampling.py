"""What a step shows and asks: only what is there, as often as it should."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode

from catalogproc.datasets.star_table import Table, describe, mixture
from catalogproc.errors import JobError
from catalogproc.network.bundle import Standardisation
from catalogproc.training.config import Settings
from catalogproc.training.token_sampling import sample, standardise

CPU = torch.device("cpu")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def stars(n, v, seed=0, missing=0.4):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, v))
    values[rng.random((n, v)) < missing] = np.nan
    return torch.tensor(values, dtype=torch.float32)


def draw(values, tokens=(5, 64), targets=8, weights=None, seed=0, repeat=1.0):
    errors = 0.01 * torch.arange(values.numel(), dtype=torch.float32).view(values.shape)
    weights = torch.ones(values.shape[1]) if weights is None else torch.tensor(weights)
    return errors, sample(
        values,
        errors,
        weights,
        tokens=tokens,
        targets=targets,
        repeat=repeat,
        generator=generator(seed),
    )


def test_only_what_a_star_has_is_shown_and_asked_and_nothing_twice():
    values = stars(500, 40)
    values[7] = torch.nan
    values[8, 1:] = torch.nan
    values[8, 0] = 1.0
    # Stars come back in another order: what is known of each is found by its values.
    errors, drawn = draw(values, tokens=(5, 20))
    star_of = {row[~row.isnan()].sum().item(): n for n, row in enumerate(values)}
    assert len(star_of) == 500
    lengths = []
    for ids, x, requests, truth, error, asked in zip(
        drawn.ids, drawn.values, drawn.requests, drawn.truth, drawn.error, drawn.asked, strict=True
    ):
        shown = ids[ids > 0]
        lengths.append(len(shown))
        assert (ids[len(shown) :] == 0).all()
        assert (x[len(shown) :] == 0).all()
        assert len(shown.unique()) == len(shown)
        known = [row for row in range(500) if torch.equal(values[row, shown - 1], x[: len(shown)])]
        numbers = requests[asked]
        assert len(numbers.unique()) == len(numbers)
        known = [n for n in known if torch.equal(values[n, numbers - 1], truth[asked])]
        assert known
        if len(known) == 1:
            present = int((~values[known[0]].isnan()).sum())
            assert asked.sum() == min(8, present)
            assert torch.equal(errors[known[0], numbers - 1], error[asked])
        assert (truth[~asked] == 0).all()
        assert (error[~asked] == 0).all()
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] == 0
    assert drawn.ids.shape == (500, lengths[0])


def test_how_many_tokens_are_shown_is_uniform_and_which_ones_is_too():
    values = torch.zeros(20_000, 30)
    _, drawn = draw(values, tokens=(3, 12))
    sizes = np.bincount((drawn.ids > 0).sum(1).numpy(), minlength=13)
    assert sizes[:3].sum() == 0
    assert stats.chisquare(sizes[3:]).pvalue > 1e-4
    tokens = np.bincount(drawn.ids[drawn.ids > 0].numpy(), minlength=31)[1:]
    assert tokens.min() > 0
    # Within a star tokens are drawn without replacement, so counts vary less than Poisson.
    assert np.abs(tokens - tokens.mean()).max() < 5 * np.sqrt(tokens.mean())


def test_fault_15_every_token_is_asked_as_often_as_any_other():
    _, drawn = draw(torch.zeros(5_000, 118), targets=8)
    asked = np.bincount(drawn.requests[drawn.asked].numpy(), minlength=119)[1:]
    assert asked.sum() == 8 * 5_000
    assert np.abs(asked - asked.mean()).max() < 5 * np.sqrt(asked.mean())


def test_a_target_may_be_among_what_is_shown_and_need_not():
    _, drawn = draw(torch.zeros(2_000, 40), tokens=(20, 20), targets=1)
    inside = (drawn.ids == drawn.requests).any(dim=1).float().mean()
    assert inside == pytest.approx(0.5, abs=0.05)


def test_what_is_shown_can_be_asked_less_often_or_never():
    for repeat, share in ((0.0, 0.0), (0.25, 0.2), (1.0, 0.5), (4.0, 0.8)):
        _, drawn = draw(torch.zeros(2_000, 40), tokens=(20, 20), targets=1, repeat=repeat)
        inside = (drawn.ids == drawn.requests).any(dim=1).float().mean()
        assert inside == pytest.approx(share, abs=0.04)
    # Where all is shown and none may be asked again, nothing is.
    _, drawn = draw(torch.zeros(5, 4), tokens=(4, 4), targets=2, repeat=0.0)
    assert not drawn.asked.any()


def test_a_star_can_be_shown_without_its_labels_and_asked_for_them():
    values = torch.zeros(4_000, 12)
    labels = torch.arange(12) >= 9
    drawn = sample(
        values, values, torch.ones(12), tokens=(12, 12), targets=12, repeat=0.0,
        labels=labels, unlabelled=0.7, generator=generator(),
    )  # fmt: skip
    bare = (drawn.ids > 0).sum(1) == 9
    assert bare.float().mean() == pytest.approx(0.7, abs=0.03)
    assert (drawn.ids[bare] <= 9).all()
    # What was hidden is asked, and nothing else: all else was shown.
    assert (drawn.asked[bare].sum(1) == 3).all()
    assert (drawn.requests[bare][drawn.asked[bare]] > 9).all()
    assert not drawn.asked[~bare].any()


def test_weights_say_how_likely_a_token_is_asked():
    weights = [1.0, 2.0, 5.0, 0.0, 2.0]
    _, drawn = draw(torch.zeros(40_000, 5), targets=1, weights=weights)
    asked = np.bincount(drawn.requests.flatten().numpy(), minlength=6)[1:]
    assert asked[3] == 0
    expected = np.array([1, 2, 5, 2]) / 10 * 40_000
    assert stats.chisquare(asked[[0, 1, 2, 4]], expected).pvalue > 1e-4
    _, drawn = draw(torch.zeros(10, 5), targets=5, weights=weights)
    assert (drawn.asked.sum(1) == 4).all()


def test_fault_2_a_star_without_targets_is_asked_nothing():
    values = torch.full((4, 6), torch.nan)
    values[1, 2] = 1.5
    _, drawn = draw(values, weights=[1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    assert not drawn.asked.any()
    assert drawn.truth.abs().sum() == 0
    assert drawn.ids.tolist() == [[3], [0], [0], [0]]


def test_fault_3_a_batch_takes_as_many_operations_as_a_star():
    class Operations(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.count += 1
            return func(*args, **(kwargs or {}))

    counts = []
    for n in (2, 4096):
        values = stars(n, 120)
        with Operations() as operations:
            draw(values)
        counts.append(operations.count)
    assert counts[0] == counts[1]


def test_the_same_seed_gives_the_same_questions():
    values = stars(50, 20)
    first, again, other = (draw(values, seed=seed)[1] for seed in (1, 1, 2))
    assert torch.equal(first.ids, again.ids)
    assert torch.equal(first.requests, again.requests)
    assert not torch.equal(first.requests, other.requests)


def test_standardising_is_done_in_float64_and_keeps_absence_and_errors():
    by = Standardisation(np.array([1e9, 0.0, 2.0]), np.array([1.0, 2.0, 4.0]))
    values = np.array([[1e9 + 0.5, np.nan, np.inf]])
    errors = np.array([[0.1, np.nan, -1.0]])
    z, error = standardise(values, errors, by, CPU)
    assert z.dtype == error.dtype == torch.float32
    assert z[0, 0] == 0.5
    assert z[0, 1:].isnan().all()
    torch.testing.assert_close(error, torch.tensor([[0.1, 0.0, 0.0]]))
    values.setflags(write=False)  # as memory of Arrow's is
    assert torch.equal(standardise(values, errors, by, CPU)[0].isnan(), z.isnan())


def table(n=4000):
    ids = np.random.default_rng(3).integers(2**62, size=n)
    values = np.arange(n, dtype=float)[:, None]
    return Table(ids, values, values / 10)


def test_a_table_gives_whole_rows_by_seed():
    given = table()
    values, errors = given.draw(5, 100)
    assert np.array_equal(errors, values / 10)
    assert np.array_equal(given.draw(5, 100)[0], values)
    assert not np.array_equal(given.draw(6, 100)[0], values)
    # More than it has is no trouble.
    assert len(table(3).draw(0, 10)[0]) == 10
    with pytest.raises(JobError, match="of one length"):
        Table(np.arange(3), np.ones((3, 2)), np.ones((3, 1)))


def test_a_split_is_by_star_whatever_the_order_and_company():
    given = table()
    twice = Table(*(np.concatenate([x, x[::-1]]) for x in (given.ids, given.values, given.errors)))
    train, held = twice.split(0.1, seed=1)
    assert len(train.ids) + len(held.ids) == 8000
    assert not set(train.ids) & set(held.ids)
    assert len(held.ids) / 8000 == pytest.approx(0.1, abs=0.02)
    assert set(given.split(0.1, seed=1)[1].ids) == set(held.ids)
    assert set(given.split(0.1, seed=2)[1].ids) != set(held.ids)
    # Consecutive identifiers, as Gaia's are within a sky pixel, are no pattern.
    near = Table(np.arange(10_000), np.ones((10_000, 1)), np.ones((10_000, 1)))
    parity = near.split(0.5, seed=0)[1].ids % 2
    assert parity.mean() == pytest.approx(0.5, abs=0.03)


def test_a_mixture_takes_its_share_of_every_batch():
    def constant(value):
        return lambda seed, n: (np.full((n, 2), value + seed * 0), np.zeros((n, 2)))

    draw = mixture([(constant(1.0), 3.0), (constant(2.0), 1.0), (constant(3.0), 0.5)])
    values, errors = draw(0, 900)
    assert values.shape == errors.shape == (900, 2)
    assert [int((values[:, 0] == k).sum()) for k in (1, 2, 3)] == [600, 200, 100]
    seeds = []
    mixture([(lambda s, n: (seeds.append(s), (torch.ones(n, 1),) * 2)[1], 1.0)] * 2)(4, 7)
    assert seeds[0] != seeds[1]


def test_describe_is_median_and_mad_and_survives_constants_and_absence():
    rng = np.random.default_rng(0)
    values = rng.standard_t(2, size=(4001, 5)) * [1, 100, 1, 1, 1] + [0, 5, 0, 0, 0]
    values[rng.random(4001) < 0.3, 1] = np.nan
    values[:, 2] = 7.0  # all the same
    values[:, 3] = np.where(np.arange(4001) % 5 == 0, 3.0, 1.0)  # most the same
    values[:, 4] = np.nan
    by, domain = describe(values, np.array([False, True, True, False, True]))
    for column in (0, 1):
        x = values[~np.isnan(values[:, column]), column]
        assert by.center[column] == np.median(x)
        robust = stats.median_abs_deviation(x, scale=1 / 1.4826)
        assert by.scale[column] == pytest.approx(robust)
    assert by.center[2:].tolist() == [7.0, 1.0, 0.0]
    assert by.scale[2:].tolist() == [1.0, pytest.approx(values[:, 3].std()), 1.0]
    inside = (values[:, 0] >= domain.low[0]) & (values[:, 0] <= domain.high[0])
    assert inside.mean() == pytest.approx(0.996, abs=0.001)
    assert domain.low[1] == np.nanmin(values[:, 1])
    assert domain.high[1] == np.nanmax(values[:, 1])
    assert np.isnan([domain.low[4], domain.high[4]]).all()


def test_some_stars_are_shown_by_their_labels_alone_and_asked_for_the_rest():
    values = torch.zeros(20_000, 20)
    values[0, :6] = torch.nan  # a star without labels is shown as any other
    labels = torch.arange(20) < 6
    drawn = sample(
        values, torch.zeros_like(values), torch.ones(20), tokens=(20, 20), targets=4,
        repeat=0.0, labels=labels, unlabelled=0.5, labels_alone=0.2, generator=generator(),
    )  # fmt: skip
    shown = drawn.ids > 0
    label = shown & (drawn.ids <= 6)
    alone = (label.sum(1) == shown.sum(1)) & (shown.sum(1) > 0)
    bare = label.sum(1) == 0
    nothing = shown.sum(1) == 0  # all six labels left out: 0.25^6
    assert alone.float().mean() == pytest.approx(0.2, abs=0.01)
    assert bare.float().mean() == pytest.approx(0.5, abs=0.015)
    assert nothing.float().mean() < 0.002
    assert shown[alone].sum(1).float().mean() == pytest.approx(6 * 0.75, abs=0.1)
    assert (drawn.asked.sum(1)[alone] == 4).all()
    with pytest.raises(JobError, match=r"more than all stars(.|\n)*0\.9 \+ 0\.2"):
        Settings(unlabelled=0.9, labels_alone=0.2)
