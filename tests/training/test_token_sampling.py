"""Tokens that a step shows and requests: only those that a star has, with the right frequency."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode

from catalogproc.datasets.star_table import StarTable, fit_standardisation, mixture
from catalogproc.errors import JobError
from catalogproc.network.bundle import Standardisation
from catalogproc.training.config import Settings
from catalogproc.training.token_sampling import TokenSampler, standardise

CPU = torch.device("cpu")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def stars(n, v, seed=0, missing=0.4):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, v))
    values[rng.random((n, v)) < missing] = np.nan
    return torch.tensor(values, dtype=torch.float32)


def sample(values, tokens=(5, 64), weights=None, seed=0, labels=None, read=None, **settings):
    """Errors of the values, and a batch of their tokens."""
    errors = 0.01 * torch.arange(values.numel(), dtype=torch.float32).view(values.shape)
    weights = torch.ones(values.shape[1]) if weights is None else torch.tensor(weights)
    rules = Settings(min_tokens=tokens[0], max_tokens=tokens[1], **settings)
    sampler = TokenSampler(weights, labels, read, rules)
    return errors, sampler.sample(values, errors, generator(seed))


def test_only_tokens_of_the_star_are_shown_and_requested_each_once():
    values = stars(500, 40)
    values[7] = torch.nan
    values[8, 1:] = torch.nan
    values[8, 0] = 1.0
    # Stars come back in another order and are identified by their values.
    errors, batch = sample(values, tokens=(5, 20))
    star_of = {row[~row.isnan()].sum().item(): n for n, row in enumerate(values)}
    assert len(star_of) == 500
    lengths = []
    shown_and_requested = (batch.shown.ids, batch.shown.values, batch.requests, batch.truth,
                           batch.error, batch.requested)  # fmt: skip
    for ids, x, requests, truth, error, requested in zip(*shown_and_requested, strict=True):
        shown = ids[ids > 0]
        lengths.append(len(shown))
        assert (ids[len(shown) :] == 0).all()
        assert (x[len(shown) :] == 0).all()
        assert len(shown.unique()) == len(shown)
        numbers = requests[requested]
        assert len(numbers.unique()) == len(numbers)
        equal = (values[:, shown - 1] == x[: len(shown)]).all(1)
        equal &= (values[:, numbers - 1] == truth[requested]).all(1)
        candidates = equal.nonzero()[:, 0].tolist()
        assert candidates
        if len(candidates) == 1:
            present = int((~values[candidates[0]].isnan()).sum())
            assert requested.sum() == min(8, present)
            assert torch.equal(errors[candidates[0], numbers - 1], error[requested])
        assert (truth[~requested] == 0).all()
        assert (error[~requested] == 0).all()
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] == 0
    assert batch.shown.ids.shape == (500, lengths[0])


def test_number_and_choice_of_shown_tokens_are_uniform():
    values = torch.zeros(20_000, 30)
    _, batch = sample(values, tokens=(3, 12))
    sizes = np.bincount((batch.shown.ids > 0).sum(1).numpy(), minlength=13)
    assert sizes[:3].sum() == 0
    assert stats.chisquare(sizes[3:]).pvalue > 1e-4
    tokens = np.bincount(batch.shown.ids[batch.shown.ids > 0].numpy(), minlength=31)[1:]
    assert tokens.min() > 0
    # Within a star tokens are batch without replacement, so counts vary less than Poisson.
    assert np.abs(tokens - tokens.mean()).max() < 5 * np.sqrt(tokens.mean())


def test_every_token_is_requested_equally_often():
    _, batch = sample(torch.zeros(5_000, 118), targets=8)
    counts = np.bincount(batch.requests[batch.requested].numpy(), minlength=119)[1:]
    assert counts.sum() == 8 * 5_000
    assert np.abs(counts - counts.mean()).max() < 5 * np.sqrt(counts.mean())


def test_a_requested_token_may_be_shown_or_not():
    _, batch = sample(torch.zeros(2_000, 40), tokens=(20, 20), targets=1)
    inside = (batch.shown.ids == batch.requests).any(dim=1).float().mean()
    assert inside == pytest.approx(0.5, abs=0.05)


def test_shown_tokens_are_requested_less_often_or_never_by_repeat():
    for repeat, share in ((0.0, 0.0), (0.25, 0.2), (1.0, 0.5), (4.0, 0.8)):
        _, batch = sample(torch.zeros(2_000, 40), tokens=(20, 20), targets=1, repeat=repeat)
        inside = (batch.shown.ids == batch.requests).any(dim=1).float().mean()
        assert inside == pytest.approx(share, abs=0.04)
    # If all tokens are shown and none may be repeated, nothing is requested.
    _, batch = sample(torch.zeros(5, 4), tokens=(4, 4), targets=2, repeat=0.0)
    assert not batch.requested.any()


def test_labels_are_requested_of_stars_shown_without_labels():
    values = torch.zeros(4_000, 12)
    labels = torch.arange(12) >= 9
    _, batch = sample(values, (12, 12), labels=labels, targets=12, repeat=0.0, unlabelled=0.7)
    bare = (batch.shown.ids > 0).sum(1) == 9
    assert bare.float().mean() == pytest.approx(0.7, abs=0.03)
    assert (batch.shown.ids[bare] <= 9).all()
    # The hidden labels are requested, and nothing else: all other tokens are shown.
    assert (batch.requested[bare].sum(1) == 3).all()
    assert (batch.requests[bare][batch.requested[bare]] > 9).all()
    assert not batch.requested[~bare].any()


def test_tokens_are_requested_in_proportion_to_their_weights():
    weights = [1.0, 2.0, 5.0, 0.0, 2.0]
    _, batch = sample(torch.zeros(40_000, 5), targets=1, weights=weights)
    counts = np.bincount(batch.requests.flatten().numpy(), minlength=6)[1:]
    assert counts[3] == 0
    expected = np.array([1, 2, 5, 2]) / 10 * 40_000
    assert stats.chisquare(counts[[0, 1, 2, 4]], expected).pvalue > 1e-4
    _, batch = sample(torch.zeros(10, 5), targets=5, weights=weights)
    assert (batch.requested.sum(1) == 4).all()


def test_stars_without_targets_have_no_requests():
    values = torch.full((4, 6), torch.nan)
    values[1, 2] = 1.5
    _, batch = sample(values, weights=[1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    assert not batch.requested.any()
    assert batch.truth.abs().sum() == 0
    assert batch.shown.ids.tolist() == [[3], [0], [0], [0]]


def test_the_number_of_operations_does_not_depend_on_the_batch_size():
    class Operations(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.count += 1
            return func(*args, **(kwargs or {}))

    counts = []
    for n in (2, 4096):
        values = stars(n, 120)
        with Operations() as operations:
            sample(values)
        counts.append(operations.count)
    assert counts[0] == counts[1]


def test_the_same_seed_gives_the_same_tokens():
    values = stars(50, 20)
    first, again, other = (sample(values, seed=seed)[1] for seed in (1, 1, 2))
    assert torch.equal(first.shown.ids, again.shown.ids)
    assert torch.equal(first.requests, again.requests)
    assert not torch.equal(first.requests, other.requests)


def test_standardisation_is_in_float64_and_keeps_absent_values_and_errors():
    by = Standardisation(np.array([1e9, 0.0, 2.0]), np.array([1.0, 2.0, 4.0]))
    values = np.array([[1e9 + 0.5, np.nan, np.inf]])
    errors = np.array([[0.1, np.nan, -1.0]])
    z, error = standardise(values, errors, by, CPU)
    assert z.dtype == error.dtype == torch.float32
    assert z[0, 0] == 0.5
    assert z[0, 1:].isnan().all()
    torch.testing.assert_close(error, torch.tensor([[0.1, torch.nan, 0.0]]), equal_nan=True)
    values.setflags(write=False)  # as memory of Arrow's is
    assert torch.equal(standardise(values, errors, by, CPU)[0].isnan(), z.isnan())


def table(n=4000):
    ids = np.random.default_rng(3).integers(2**62, size=n)
    values = np.arange(n, dtype=float)[:, None]
    return StarTable(ids, values, values / 10)


def test_a_table_samples_rows_by_seed():
    stars = table()
    values, errors = stars.sample(5, 100)
    assert np.array_equal(errors, values / 10)
    assert np.array_equal(stars.sample(5, 100)[0], values)
    assert not np.array_equal(stars.sample(6, 100)[0], values)
    # More rows than it has can be sampled.
    assert len(table(3).sample(0, 10)[0]) == 10
    with pytest.raises(JobError, match="the same length"):
        StarTable(np.arange(3), np.ones((3, 2)), np.ones((3, 1)))


def test_a_split_depends_on_the_star_and_not_on_the_other_rows():
    stars = table()
    twice = StarTable(
        *(np.concatenate([x, x[::-1]]) for x in (stars.ids, stars.values, stars.errors))
    )
    train, test = twice.split(0.1, seed=1)
    assert len(train.ids) + len(test.ids) == 8000
    assert not set(train.ids) & set(test.ids)
    assert len(test.ids) / 8000 == pytest.approx(0.1, abs=0.02)
    assert set(stars.split(0.1, seed=1)[1].ids) == set(test.ids)
    assert set(stars.split(0.1, seed=2)[1].ids) != set(test.ids)
    # Consecutive identifiers, as Gaia's within a sky pixel, are divided evenly.
    near = StarTable(np.arange(10_000), np.ones((10_000, 1)), np.ones((10_000, 1)))
    parity = near.split(0.5, seed=0)[1].ids % 2
    assert parity.mean() == pytest.approx(0.5, abs=0.03)


def test_a_mixture_takes_a_fixed_share_of_every_batch():
    def constant(value):
        return lambda seed, n: (np.full((n, 2), value + seed * 0), np.zeros((n, 2)))

    sampler = mixture([(constant(1.0), 3.0), (constant(2.0), 1.0), (constant(3.0), 0.5)])
    values, errors = sampler(0, 900)
    assert values.shape == errors.shape == (900, 2)
    assert [int((values[:, 0] == k).sum()) for k in (1, 2, 3)] == [600, 200, 100]
    seeds = []
    mixture([(lambda s, n: (seeds.append(s), (torch.ones(n, 1),) * 2)[1], 1.0)] * 2)(4, 7)
    assert seeds[0] != seeds[1]


def test_standardisation_is_median_and_mad_also_with_constant_and_absent_values():
    rng = np.random.default_rng(0)
    values = rng.standard_t(2, size=(4001, 5)) * [1, 100, 1, 1, 1] + [0, 5, 0, 0, 0]
    values[rng.random(4001) < 0.3, 1] = np.nan
    values[:, 2] = 7.0  # all the same
    values[:, 3] = np.where(np.arange(4001) % 5 == 0, 3.0, 1.0)  # most the same
    values[:, 4] = np.nan
    by, domain = fit_standardisation(values, np.array([False, True, True, False, True]))
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


def test_only_labels_are_shown_of_some_stars_and_other_tokens_requested():
    values = torch.zeros(20_000, 20)
    values[0, :6] = torch.nan  # a star without labels is shown as any other
    labels = torch.arange(20) < 6
    _, batch = sample(
        values, (20, 20), labels=labels, targets=4, repeat=0.0, unlabelled=0.5, labels_alone=0.2
    )
    shown = batch.shown.ids > 0
    label = shown & (batch.shown.ids <= 6)
    alone = (label.sum(1) == shown.sum(1)) & (shown.sum(1) > 0)
    bare = label.sum(1) == 0
    nothing = shown.sum(1) == 0  # all six labels left out: 0.25^6
    assert alone.float().mean() == pytest.approx(0.2, abs=0.01)
    assert bare.float().mean() == pytest.approx(0.5, abs=0.015)
    assert nothing.float().mean() < 0.002
    assert shown[alone].sum(1).float().mean() == pytest.approx(6 * 0.75, abs=0.1)
    assert (batch.requested.sum(1)[alone] == 4).all()
    with pytest.raises(JobError, match=r"more than all stars(.|\n)*0\.9 \+ 0\.2"):
        Settings(unlabelled=0.9, labels_alone=0.2)


def test_stars_as_a_run_reads_them_show_its_tokens_and_some_of_the_labels_that_it_may_read():
    n, v = 4000, 40
    number = torch.arange(v)
    read, labels = number < 15, (number >= 12) & (number < 20)  # 12 to 14 are both
    _, batch = sample(
        torch.randn(n, v, generator=generator(1)), tokens=(40, 40), labels=labels, read=read,
        as_run=0.6, unlabelled=0.9, measured=0.3,
    )  # fmt: skip
    shown = torch.zeros(n, v + 1, dtype=torch.bool).scatter_(1, batch.shown.ids, True)[:, 1:]
    as_run = ~shown[:, 20:].any(1)
    assert float(as_run.float().mean()) == pytest.approx(0.6, abs=0.03)
    assert shown[:, :12].all()
    assert shown[~as_run, 20:].all()
    unlabelled = ~shown[:, 15:20].any(1)
    assert float(unlabelled.float().mean()) == pytest.approx(0.9, abs=0.02)
    assert float(shown[unlabelled, 12:15].float().mean()) == pytest.approx(0.3, abs=0.02)
    assert shown[~unlabelled, 12:15].all()


def test_a_probability_is_scaled_by_its_range_and_not_by_the_scatter_about_zero():
    rng = np.random.default_rng(3)
    clump = rng.random(5000) < 0.3
    probability = np.clip(np.where(clump, 1.0, 0.0) + rng.normal(0, 0.002, 5000), 0, 1)
    by, _ = fit_standardisation(probability[:, None], np.array([True]))
    assert by.scale[0] == pytest.approx(0.39, abs=0.02)


def test_the_true_value_of_a_probability_has_a_smallest_error():
    values = torch.zeros(200, 3)
    sampler = TokenSampler(
        torch.tensor([0.0, 1.0, 1.0]), settings=Settings(min_tokens=0, max_tokens=1, targets=2),
        least_errors=torch.tensor([0.0, 0.5, 0.01]),
    )  # fmt: skip
    batch = sampler.sample(values, torch.full((200, 3), 0.1), generator())
    for number, error in ((2, 0.5), (3, 0.1)):
        assert (batch.error[batch.requests == number] == error).all()
