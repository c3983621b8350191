"""Training: known posteriors are found, and an interrupted training gives the same weights."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from catalogproc.datasets.star_table import StarTable
from catalogproc.errors import CatalogprocError, JobError, ResumeError
from catalogproc.network.bundle import Standardisation
from catalogproc.network.components import Components
from catalogproc.network.packed_tokens import PackedTokens
from catalogproc.network.shape import Shape
from catalogproc.network.transformer import Transformer
from catalogproc.training.checkpoint import load_checkpoint, read_curve
from catalogproc.training.config import MixedPrecision, Settings
from catalogproc.training.schedule import Schedule
from catalogproc.training.token_sampling import TokenBatch, TrainingStars, derived_seeds
from catalogproc.training.trainer import Trainer
from catalogproc.training.training_step import TrainingState, likelihood_loss

SHAPE = Shape(6, 8, ((2, 16),), ((2, 16),), (16,), dropout=0.1)
PLAIN = Standardisation(np.zeros(6), np.ones(6))
QUICK = Settings(steps=12, batch=32, rate=1e-2, min_tokens=1, max_tokens=6, targets=3,
                 report_steps=2, checkpoint_steps=4, restart_steps=7)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    """Such small networks are fastest on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def with_(settings, **changes):
    return Settings(**{**vars(settings), **changes})


def correlated(seed, n):
    """Six correlated numbers per star, of which a third are missing."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 1)) + 0.3 * rng.normal(size=(n, 6))
    values[rng.random((n, 6)) < 0.3] = np.nan
    return values, np.full((n, 6), 0.1)


def fit(folder, sampler=correlated, settings=QUICK, *, weights=None, validation=None, **options):
    stars = TrainingStars(sampler, PLAIN, weights, validation=validation)
    return Trainer(SHAPE, stars, settings).fit(folder, **options)


def table(seed, n):
    return StarTable(np.arange(n), *correlated(seed, n))


def weights_of(trained):
    return {name: value.clone() for name, value in trained.network.state_dict().items()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_the_analytic_posterior_is_found(tmp_path):
    """z ~ N(0, 1) and five measurements of it with noise 0.6: any of them give z's posterior.

    The label z has an error of 0.3. The loss includes it, so that the predicted errors must not.
    """

    def stars(seed, n):
        rng = np.random.default_rng(seed)
        z = rng.normal(size=(n, 1))
        measured = z + 0.6 * rng.normal(size=(n, 5))
        label = z + 0.3 * rng.normal(size=(n, 1))
        return np.hstack([measured, label]), np.hstack([np.zeros((n, 5)), np.full((n, 1), 0.3)])

    settings = Settings(steps=500, batch=512, rate=1e-2, restart_steps=500, min_tokens=1,
                        max_tokens=6, targets=1, repeat=0.0, parts=1, average=0.98,
                        weight_decay=0.0, report_steps=100, checkpoint_steps=500)  # fmt: skip
    shape = Shape(6, 16, ((2, 32),), ((2, 32),), (32,), dropout=0.0)
    only_label = np.array([0, 0, 0, 0, 0, 1])
    training = TrainingStars(stars, PLAIN, only_label)
    network = Trainer(shape, training, settings).fit(tmp_path).network
    rng = np.random.default_rng(99)
    # With the label's error included, the errors would be 1.16, 1.25 and 1.53 times too large.
    for count, tolerance in ((1, 0.1), (2, 0.12), (5, 0.3)):
        z = rng.normal(size=(2000, 1))
        x = z + 0.6 * rng.normal(size=(2000, count))
        ids = torch.arange(1, count + 1).expand(2000, count)
        with torch.inference_mode():
            mean, log_variance = network(
                PackedTokens(ids, torch.tensor(x).float()), torch.tensor([6])
            )
        precision = 1 + count / 0.36
        expected = x.sum(axis=1) / 0.36 / precision
        sigma = precision**-0.5
        deviation = (mean[:, 0].numpy() - expected) / sigma
        predicted = log_variance[:, 0].exp().sqrt().numpy()
        assert np.sqrt(np.mean(deviation**2)) < 0.3, count
        assert np.median(predicted) == pytest.approx(sigma, rel=tolerance), count
        pull = (mean[:, 0].numpy() - z[:, 0]) / predicted
        assert pull.std() == pytest.approx(1.0, abs=tolerance), count


def loss_of(mean, log_variance, truth, error, requested):
    numbers = torch.zeros(truth.shape, dtype=torch.int64)
    batch = TokenBatch(PackedTokens(numbers, truth), numbers, truth, error, requested)
    return likelihood_loss(Components(mean[..., None], log_variance[..., None]), batch)


def test_the_loss_is_the_normal_likelihood_with_the_label_error_added():
    torch.manual_seed(0)
    mean, s, y = torch.randn(3, 20, 4, dtype=torch.float64)
    error = torch.rand(20, 4, dtype=torch.float64)
    requested = torch.rand(20, 4) < 0.7
    found = loss_of(mean, s, y, error, requested)
    normal = torch.distributions.Normal(mean, (s.exp() + error**2).sqrt())
    expected = -(normal.log_prob(y)[requested].mean()) - 0.5 * math.log(2 * math.pi)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    exact = loss_of(mean, s, y, torch.zeros_like(error), torch.ones_like(requested))
    of_torch = torch.nn.GaussianNLLLoss(eps=0)(mean, y, s.exp())
    assert exact.item() == pytest.approx(of_torch.item(), rel=1e-6)


def test_the_loss_is_finite_for_exact_labels_and_without_requests():
    s = torch.tensor([[-60.0, -200.0]], requires_grad=True)
    mean = torch.tensor([[1.0, 3.0]], requires_grad=True)
    loss = loss_of(
        mean, s, torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2), torch.tensor([[True, False]])
    )
    loss.backward()
    assert loss.isfinite()
    assert s.grad.tolist()[0][1] == mean.grad.tolist()[0][1] == 0.0
    assert s.grad.isfinite().all()


def test_stars_without_targets_do_not_change_the_gradient(tmp_path):
    """Batches with as many empty stars as others, and without them, have the same gradient."""
    torch.manual_seed(0)
    network = Transformer(Shape(**{**vars(SHAPE), "dropout": 0.0}))

    def gradient(values):
        present = ~values.isnan()
        ids = torch.where(present, torch.arange(1, 7), 0)
        requests = torch.arange(1, 7).expand(len(values), 6)
        x = values.nan_to_num(0.0)
        network.zero_grad()
        loss_of(
            *network(PackedTokens(ids, x), requests), x, torch.full_like(x, 0.1), present
        ).backward()
        return torch.cat([p.grad.flatten() for p in network.parameters()])

    values = torch.tensor(correlated(1, 8)[0]).float()
    empty = torch.full_like(values, torch.nan)
    torch.testing.assert_close(
        gradient(torch.cat([values, empty])), gradient(values), rtol=0, atol=1e-6
    )
    assert (gradient(empty) == 0).all()
    # A training on empty stars alone does not change the weights, except for their decay.
    nothing = fit(
        tmp_path,
        lambda seed, n: (np.full((n, 6), np.nan), np.zeros((n, 6))),
        with_(QUICK, weight_decay=0.0, steps=3),
    )
    assert nothing.request_counts.sum() == 0
    assert [row["loss"] for row in nothing.history] == [0.0, 0.0]
    torch.manual_seed(derived_seeds(QUICK.seed, 0, 2)[0])
    assert_equal(weights_of(nothing), Transformer(SHAPE).state_dict())


def test_many_targets_share_one_encoding(tmp_path, monkeypatch):
    encoded, decoded = [], []
    encode, decode = Transformer.encode, Transformer.decode_components
    monkeypatch.setattr(
        Transformer, "encode", lambda s, packed: encoded.append(len(packed)) or encode(s, packed)
    )
    monkeypatch.setattr(
        Transformer,
        "decode_components",
        lambda s, m, p, r: decoded.append(r.numel()) or decode(s, m, p, r),
    )
    fit(tmp_path, settings=with_(QUICK, steps=2, targets=5, parts=3))
    assert sum(encoded) == 2 * QUICK.batch
    assert sum(decoded) == 2 * QUICK.batch * 5


def test_every_token_that_stars_have_is_requested(tmp_path):
    trained = fit(tmp_path)
    assert trained.request_counts.shape == (6,)
    assert (trained.request_counts > 0).all()
    weights = [1.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    without = fit(tmp_path / "2", weights=np.array(weights))
    assert without.request_counts[1] == 0


@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(tmp_path, precision, average):
    settings = with_(QUICK, precision=precision, average=average, clip=1.0)
    validation = table(10**6, 40)
    uninterrupted = fit(tmp_path / "uninterrupted", settings=settings, validation=validation)

    def interrupted(at):
        steps = iter(range(at))

        def sampler(seed, n):
            if next(steps, None) is None:
                raise KeyboardInterrupt
            return correlated(seed, n)

        return sampler

    # Before the first checkpoint, right after one, and between two, after a report.
    for at in (3, 5, 6):
        torch.manual_seed(at)  # the state of the global generator must not matter
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "cut", interrupted(at), settings, validation=validation, resume=True)
    resumed = fit(tmp_path / "cut", settings=settings, validation=validation, resume=True)
    assert_equal(weights_of(resumed), weights_of(uninterrupted))
    assert np.array_equal(resumed.request_counts, uninterrupted.request_counts)
    one, other = (load_checkpoint(tmp_path / folder) for folder in ("uninterrupted", "cut"))
    assert_equal(one[0], other[0])
    assert one[1] == other[1]
    for row, expected in zip(resumed.history, uninterrupted.history, strict=True):
        del row["stars_per_second"], expected["stars_per_second"]
        assert row == pytest.approx(expected, rel=1e-8)
    # A finished training does no further step.
    again = fit(tmp_path / "cut", interrupted(0), settings, resume=True)
    assert_equal(weights_of(again), weights_of(uninterrupted))


def test_the_seed_determines_the_weights_bit_for_bit(tmp_path):
    state = torch.get_rng_state()
    first = weights_of(fit(tmp_path / "1"))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(77)
    np.random.seed(77)  # noqa: NPY002
    assert_equal(weights_of(fit(tmp_path / "2")), first)
    other = weights_of(fit(tmp_path / "3", settings=with_(QUICK, seed=1)))
    assert not torch.equal(other["mean.weight"], first["mean.weight"])


def test_a_finished_training_can_be_resumed_for_more_steps(tmp_path):
    at_once = fit(tmp_path / "uninterrupted")
    fit(tmp_path / "short", settings=with_(QUICK, steps=8))
    longer = fit(tmp_path / "short", resume=True)
    assert_equal(weights_of(longer), weights_of(at_once))


def test_a_checkpoint_of_another_training_is_refused_with_the_difference(tmp_path):
    fit(tmp_path)
    with pytest.raises(ResumeError, match=r"holds the checkpoint(.|\n)*what to do: resume it"):
        fit(tmp_path)
    for fault, arguments in {
        "wanted: rate = 0.01, as(.|\n)*found: rate = 0.1": (SHAPE, PLAIN, with_(QUICK, rate=0.1)),
        "network.width = 8(.|\n)*network.width = 4": (Shape(6, 4, (), ((2, 4),)), PLAIN, QUICK),
        "found: center": (SHAPE, Standardisation(np.ones(6), np.ones(6)), QUICK),
    }.items():
        shape, standardisation, settings = arguments
        trainer = Trainer(shape, TrainingStars(correlated, standardisation), settings)
        with pytest.raises(ResumeError, match=rf"of another training(.|\n)*{fault}"):
            trainer.fit(tmp_path, resume=True)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ResumeError, match="cannot be read"):
        fit(tmp_path, resume=True)


def test_no_pickle_is_written(tmp_path):
    fit(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("checkpoint.safetensors", "learning_curve.csv"),
    ]
    # safetensors begins with the length of a JSON header: it contains no code.
    content = (tmp_path / "checkpoint.safetensors").read_bytes()
    assert content[8:9] == b"{"


def test_mixed_precision_depends_on_the_type_of_device_and_not_on_its_name(monkeypatch):
    for name in ("cuda", "cuda:0", "cuda:3"):
        half = MixedPrecision.choose(name, "float16")
        assert half.device.type == "cuda"
        assert half.is_scaled
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        assert MixedPrecision.choose(name, "auto").dtype is torch.bfloat16
        assert not MixedPrecision.choose(name, "auto").is_scaled
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
        assert MixedPrecision.choose(name, "auto").is_scaled
    assert MixedPrecision.choose("cpu", "auto").dtype is torch.float32


def test_float16_scales_the_loss_so_that_small_gradients_are_not_zero(tmp_path):
    """Unscaled gradients below 6e-8 are 0 in float16; labels with large errors have such."""

    def uncertain(seed, n):
        values, _ = correlated(seed, n)
        return values, np.full((n, 6), 3e4)

    quick = with_(QUICK, steps=8, weight_decay=0.0, precision="float16")
    torch.manual_seed(derived_seeds(quick.seed, 0, 2)[0])
    before = Transformer(SHAPE).state_dict()
    scaled = fit(tmp_path / "scaled", uncertain, quick)
    _, facts = load_checkpoint(tmp_path / "scaled")
    assert facts["scaler"]["scale"] >= 2**15
    moved = {n: (w != before[n]).float().mean() for n, w in weights_of(scaled).items()}
    assert moved["encoder.0.widen.weight"] > 0.9


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_has_the_gradient_of_float32(precision):
    gradients = []
    for name in ("float32", precision):
        torch.manual_seed(0)
        plain = Shape(**{**vars(SHAPE), "dropout": 0.0})
        state = TrainingState(plain, QUICK, MixedPrecision.choose("cpu", name))
        state.loss(state.network, token_batch(0)).backward()
        assert {weight.dtype for weight in state.network.parameters()} == {torch.float32}
        gradients.append(torch.cat([w.grad.flatten() for w in state.network.parameters()]))
    exact, mixed = gradients
    assert torch.nn.functional.cosine_similarity(exact, mixed, dim=0) > 0.999
    assert mixed.norm().item() == pytest.approx(exact.norm().item(), rel=0.02)


def test_the_learning_rate_equals_pytorchs_cosine_with_warm_restarts():
    settings = with_(QUICK, rate=0.3, minimum_rate=0.01, restart_steps=7)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([weight], lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimiser, 7, eta_min=0.01)
    for step in range(30):
        assert settings.rate_at(step) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-9)
        optimiser.step()
        scheduler.step()
    warm = with_(settings, warm_steps=4)
    ratios = [warm.rate_at(step) / settings.rate_at(step) for step in range(6)]
    assert ratios == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])


def test_the_optimiser_is_adamw(tmp_path):
    """Steps with given gradients, against the published update (Loshchilov & Hutter 2019)."""
    settings = with_(QUICK, weight_decay=0.1, steps=3)
    state = TrainingState(SHAPE, settings, MixedPrecision.choose("cpu", "float32"))
    name, weight = "mean.weight", dict(state.network.named_parameters())["mean.weight"]
    expected, m, v = weight.detach().clone().double(), 0.0, 0.0
    for step in range(3):
        batch = token_batch(step)
        state.step(batch, step)
        gradient, rate = weight.grad.double(), settings.rate_at(step)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        m_hat, v_hat = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
        expected = expected * (1 - rate * 0.1) - rate * m_hat / (v_hat.sqrt() + 1e-8)
        torch.testing.assert_close(weight.detach().double(), expected, rtol=0, atol=1e-6, msg=name)


def test_the_average_is_the_exponential_moving_average_of_the_weights():
    settings = with_(QUICK, average=0.6)
    state = TrainingState(SHAPE, settings, MixedPrecision.choose("cpu", "float32"))
    expected = {name: w.detach().clone() for name, w in state.network.named_parameters()}
    for step in range(12):
        state.step(token_batch(step), step)
        decay = min(0.6, (1 + step) / (10 + step))
        for name, weight in state.network.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * weight.detach()
    for name, weight in state.result().named_parameters():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-6)


def token_batch(seed):
    values, errors = (torch.tensor(x).float() for x in correlated(seed, 32))
    ids = torch.where(values.isnan(), 0, torch.arange(1, 7))
    order = (ids > 0).sum(1).argsort(descending=True)
    values, ids, errors = values[order], ids[order], errors[order]
    x = values.nan_to_num(0.0)
    return TokenBatch(PackedTokens(ids, x), torch.arange(1, 7).expand(32, 6), x, errors, ids > 0)


def test_the_number_of_parts_does_not_change_the_weights(tmp_path):
    plain, stars = Shape(**{**vars(SHAPE), "dropout": 0.0}), TrainingStars(correlated, PLAIN)
    results = [
        Trainer(plain, stars, with_(QUICK, parts=parts)).fit(tmp_path / str(parts))
        for parts in (1, 3, 50)
    ]
    for other in results[1:]:
        for name, weight in weights_of(results[0]).items():
            torch.testing.assert_close(other.network.state_dict()[name], weight, rtol=0, atol=2e-4)


def test_training_works_with_fewer_stars_than_a_batch_and_one_token_per_star(tmp_path):
    values = np.full((3, 6), np.nan)
    values[[0, 1, 2], [0, 3, 5]] = 1.0
    few = StarTable(np.arange(3), values, np.zeros((3, 6)))
    one = StarTable(np.arange(1), values[:1], values[:1])
    trained = fit(tmp_path, few.sample, validation=one)
    assert trained.request_counts.tolist()[1] == 0
    assert trained.request_counts.sum() == QUICK.steps * QUICK.batch
    assert np.isfinite(trained.history[-1]["validation_loss"])


def test_a_diverging_training_stops_and_keeps_its_last_finite_checkpoint(tmp_path):
    def diverging(seed, n):
        values, errors = correlated(seed, n)
        steps.append(seed)
        return (values if len(steps) <= 5 else values * 1e30), errors

    steps: list[int] = []
    with pytest.raises(CatalogprocError, match=r"diverged(.|\n)*before step 6"):
        fit(tmp_path, diverging)
    tensors, facts = load_checkpoint(tmp_path)
    assert facts["step"] == 4
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert [row["step"] for row in read_curve(tmp_path)] == [2, 4]


def test_progress_and_learning_curve_agree(tmp_path):
    reports = []
    trained = fit(
        tmp_path, settings=with_(QUICK, steps=11), validation=table(10**6, 50),
        progress=lambda step, steps, metrics: reports.append((step, steps, dict(metrics))),
    )  # fmt: skip
    assert [step for step, _, _ in reports] == [2, 4, 6, 8, 10, 11]
    assert {steps for _, steps, _ in reports} == {11}
    lines = (tmp_path / "learning_curve.csv").read_text().splitlines()
    assert lines[0] == "step,loss,validation_loss,rate,stars_per_second"
    assert len(lines) == 7
    for (step, _, metrics), row, read in zip(
        reports, trained.history, read_curve(tmp_path), strict=True
    ):
        assert row == {"step": step, **metrics}
        assert read == pytest.approx(row, rel=1e-8)
        assert ("validation_loss" in row) == (step in (4, 8, 11))


def test_invalid_settings_are_refused_with_their_names():
    assert Settings.from_dict({"steps": 5, "rate": 1}) == Settings(steps=5, rate=1)
    for fault, content in {
        r"unknown field(.|\n)*found: epochs": {"epochs": 3},
        r"wrong type(.|\n)*where: \[training\], steps": {"steps": 1.5},
        r"wrong type(.|\n)*where: \[training\], batch": {"batch": True},
        r"wrong type(.|\n)*where: \[training\], rate": {"rate": "fast"},
        r"must be positive(.|\n)*where: \[training\], targets": {"targets": 0},
        r"not be negative(.|\n)*where: \[training\], seed": {"seed": -1},
        r"are no range": {"min_tokens": 70},
        r"below 1(.|\n)*where: \[training\], average": {"average": 1.0},
        r"coincide with reports": {"report_steps": 300},
        r"must not be negative(.|\n)*where: \[training\], repeat": {"repeat": -0.1},
        r"unknown precision(.|\n)*found: int8": {"precision": "int8"},
    }.items():
        with pytest.raises(JobError, match=fault):
            Settings.from_dict(content)
    for weights in (np.ones(5), -np.ones(6), np.zeros(6)):
        with pytest.raises(JobError, match="wrong weights"):
            fit(None, weights=weights)


def test_the_scaler_of_the_cpu_gives_no_warning():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        MixedPrecision.choose("cpu", "float16").scaler()
    assert not caught


def test_stars_drawn_ahead_give_the_same_weights(tmp_path):
    plain = weights_of(fit(tmp_path / "plain"))
    stars = TrainingStars(correlated, PLAIN)
    ahead = Trainer(SHAPE, stars, QUICK, threads=3).fit(tmp_path / "ahead")
    assert_equal(plain, weights_of(ahead))


def test_an_error_of_a_sampler_in_a_thread_ends_the_training(tmp_path):
    def broken(seed, n):
        raise ZeroDivisionError("no star")

    with pytest.raises(ZeroDivisionError, match="no star"):
        Trainer(SHAPE, TrainingStars(broken, PLAIN), QUICK, threads=2).fit(tmp_path)


@pytest.mark.parametrize("speed", [0.2, 5.0])
def test_a_training_of_a_given_time_ends_annealed_at_any_speed(speed):
    """Whatever a step takes, the rate falls once and to its minimum; an interruption costs none."""
    settings = with_(QUICK, steps=10**6, seconds=100.0, minimum_rate=1e-6)
    now = [0.0]
    schedule, rates, step = Schedule(settings, clock=lambda: now[0]), [], 0
    while not schedule.is_over(step):
        rates.append(schedule.rate(step))
        now[0] += speed
        step += 1
        if step == 10:  # interrupted for an hour
            resumed = now[0] + 3600
            schedule = Schedule(settings, step, now[0], clock=lambda: now[0] + 3600)
            assert schedule.passed == pytest.approx(resumed - 3600)
    assert step == math.ceil(100.0 / speed)
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == settings.rate
    assert schedule.rate(step) == pytest.approx(settings.minimum_rate)


def test_a_training_of_a_given_time_writes_its_last_steps(tmp_path):
    settings = with_(QUICK, steps=10**6, seconds=0.3, report_steps=10**5, checkpoint_steps=10**5)
    trained = fit(tmp_path, settings=settings)
    (last,) = trained.history
    tensors, facts = load_checkpoint(tmp_path)
    assert facts["step"] == last["step"] > 0
    assert facts["seconds"] >= 0.3
    assert_equal(
        {name: tensors[f"network/{name}"] for name in weights_of(trained)}, weights_of(trained)
    )
    # Resumed, nothing is left to do.
    again = fit(tmp_path, settings=settings, resume=True)
    assert_equal(weights_of(trained), weights_of(again))


def test_several_processes_cannot_train_for_a_given_time():
    with pytest.raises(JobError, match="one process"):
        Schedule(with_(QUICK, seconds=1.0), processes=2)
