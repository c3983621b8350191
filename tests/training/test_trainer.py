"""Training finds what can be worked out by hand, and can be stopped anywhere."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from catalogproc.datasets.star_table import Table
from catalogproc.errors import CatalogprocError, JobError, ResumeError
from catalogproc.network.bundle import Standardisation
from catalogproc.network.transformer import Shape, Transformer
from catalogproc.training import trainer as module
from catalogproc.training.checkpoint import load_checkpoint, read_curve
from catalogproc.training.config import Mixed
from catalogproc.training.source import seeds_of
from catalogproc.training.token_sampling import Sample
from catalogproc.training.trainer import Settings, gaussian_loss, train

SHAPE = Shape(6, 8, ((2, 16),), ((2, 16),), (16,), dropout=0.1)
PLAIN = Standardisation(np.zeros(6), np.ones(6))
QUICK = Settings(steps=12, batch=32, rate=1e-2, min_tokens=1, max_tokens=6, targets=3,
                 report_steps=2, checkpoint_steps=4, restart_steps=7)  # fmt: skip


def with_(settings, **changes):
    return Settings(**{**vars(settings), **changes})


def draw(seed, n):
    """Six correlated numbers a star, of which a third are missing."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 1)) + 0.3 * rng.normal(size=(n, 6))
    values[rng.random((n, 6)) < 0.3] = np.nan
    return values, np.full((n, 6), 0.1)


def weights_of(trained):
    return {name: value.clone() for name, value in trained.network.state_dict().items()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_it_finds_the_posterior_that_can_be_worked_out(tmp_path):
    """z ~ N(0, 1) and five measurements of it with noise 0.6: any of them give z's posterior.

    The label z is itself known to 0.3 alone, which the loss is told, and which must
    therefore not turn up in the predicted errors.
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
    label_alone = np.array([0, 0, 0, 0, 0, 1])
    network = train(shape, PLAIN, stars, settings, tmp_path, weights=label_alone).network
    rng = np.random.default_rng(99)
    # Were the label's error left in, the errors would be 1.16, 1.25 and 1.53 times too large.
    for count, tolerance in ((1, 0.1), (2, 0.12), (5, 0.3)):
        z = rng.normal(size=(2000, 1))
        x = z + 0.6 * rng.normal(size=(2000, count))
        ids = torch.arange(1, count + 1).expand(2000, count)
        with torch.inference_mode():
            mean, log_variance = network(ids, torch.tensor(x).float(), torch.tensor([6]))
        precision = 1 + count / 0.36
        wanted = x.sum(axis=1) / 0.36 / precision
        sigma = precision**-0.5
        off = (mean[:, 0].numpy() - wanted) / sigma
        stated = log_variance[:, 0].exp().sqrt().numpy()
        assert np.sqrt(np.mean(off**2)) < 0.3, count
        assert np.median(stated) == pytest.approx(sigma, rel=tolerance), count
        pull = (mean[:, 0].numpy() - z[:, 0]) / stated
        assert pull.std() == pytest.approx(1.0, abs=tolerance), count


def test_the_loss_is_the_normal_likelihood_with_the_labels_error_added():
    torch.manual_seed(0)
    mean, s, y = torch.randn(3, 20, 4, dtype=torch.float64)
    error = torch.rand(20, 4, dtype=torch.float64)
    asked = torch.rand(20, 4) < 0.7
    found = gaussian_loss(mean, s, y, error, asked)
    normal = torch.distributions.Normal(mean, (s.exp() + error**2).sqrt())
    wanted = -(normal.log_prob(y)[asked].mean()) - 0.5 * math.log(2 * math.pi)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)
    exact = gaussian_loss(mean, s, y, torch.zeros_like(error), torch.ones_like(asked))
    torch_own = torch.nn.GaussianNLLLoss(eps=0)(mean, y, s.exp())
    assert exact.item() == pytest.approx(torch_own.item(), rel=1e-6)


def test_the_loss_stays_finite_where_a_label_is_exact_and_nothing_is_asked():
    s = torch.tensor([[-60.0, -200.0]], requires_grad=True)
    mean = torch.tensor([[1.0, 3.0]], requires_grad=True)
    loss = gaussian_loss(
        mean, s, torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2), torch.tensor([[True, False]])
    )
    loss.backward()
    assert loss.isfinite()
    assert s.grad.tolist()[0][1] == mean.grad.tolist()[0][1] == 0.0
    assert s.grad.isfinite().all()


def test_fault_2_stars_without_targets_teach_nothing(tmp_path):
    """Batches half of stars without a token, and the same without them: the same gradient."""
    torch.manual_seed(0)
    network = Transformer(Shape(**{**vars(SHAPE), "dropout": 0.0}))

    def gradient(values):
        present = ~values.isnan()
        ids = torch.where(present, torch.arange(1, 7), 0)
        requests = torch.arange(1, 7).expand(len(values), 6)
        x = values.nan_to_num(0.0)
        network.zero_grad()
        out = network(ids, x, requests)
        gaussian_loss(*out, x, torch.full_like(x, 0.1), present).backward()
        return torch.cat([p.grad.flatten() for p in network.parameters()])

    values = torch.tensor(draw(1, 8)[0]).float()
    empty = torch.full_like(values, torch.nan)
    torch.testing.assert_close(
        gradient(torch.cat([values, empty])), gradient(values), rtol=0, atol=1e-6
    )
    assert (gradient(empty) == 0).all()
    # And a whole training on nothing leaves the weights as they began, but for their decay.
    nothing = train(
        SHAPE,
        PLAIN,
        lambda seed, n: (np.full((n, 6), np.nan), np.zeros((n, 6))),
        with_(QUICK, weight_decay=0.0, steps=3),
        tmp_path,
    )
    assert nothing.asked.sum() == 0
    assert [row["loss"] for row in nothing.history] == [0.0, 0.0]
    torch.manual_seed(seeds_of(QUICK.seed, 0, 2)[0])
    assert_equal(weights_of(nothing), Transformer(SHAPE).state_dict())


def test_fault_4_many_targets_are_asked_of_one_encoding(tmp_path, monkeypatch):
    encoded, asked = [], []
    encode, decode = Transformer.encode, Transformer.decode
    monkeypatch.setattr(
        Transformer, "encode", lambda s, ids, x: encoded.append(len(ids)) or encode(s, ids, x)
    )
    monkeypatch.setattr(
        Transformer, "decode", lambda s, m, p, r: asked.append(r.numel()) or decode(s, m, p, r)
    )
    train(SHAPE, PLAIN, draw, with_(QUICK, steps=2, targets=5, parts=3), tmp_path)
    assert sum(encoded) == 2 * QUICK.batch
    assert sum(asked) == 2 * QUICK.batch * 5


def test_fault_15_every_token_that_stars_have_is_asked(tmp_path):
    trained = train(SHAPE, PLAIN, draw, QUICK, tmp_path)
    assert trained.asked.shape == (6,)
    assert (trained.asked > 0).all()
    weights = [1.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    without = train(SHAPE, PLAIN, draw, QUICK, tmp_path / "2", weights=np.array(weights))
    assert without.asked[1] == 0


@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_fault_12_an_interrupted_training_goes_on_as_if_nothing_had_been(
    tmp_path, precision, average
):
    settings = with_(QUICK, precision=precision, average=average, clip=1.0)
    held = draw(10**6, 40)
    undisturbed = train(SHAPE, PLAIN, draw, settings, tmp_path / "whole", validation=held)

    def interrupted(at):
        steps = iter(range(at))

        def drawn(seed, n):
            if next(steps, None) is None:
                raise KeyboardInterrupt
            return draw(seed, n)

        return drawn

    # Before the first checkpoint, right after one, and in the midst, after a report.
    for at in (3, 5, 6):
        torch.manual_seed(at)  # what else was random in the process is no matter
        with pytest.raises(KeyboardInterrupt):
            train(SHAPE, PLAIN, interrupted(at), settings, tmp_path / "cut", validation=held,
                  resume=True)  # fmt: skip
    resumed = train(SHAPE, PLAIN, draw, settings, tmp_path / "cut", validation=held, resume=True)
    assert_equal(weights_of(resumed), weights_of(undisturbed))
    assert np.array_equal(resumed.asked, undisturbed.asked)
    one, other = (load_checkpoint(tmp_path / folder) for folder in ("whole", "cut"))
    assert_equal(one[0], other[0])
    assert one[1] == other[1]
    for row, wanted in zip(resumed.history, undisturbed.history, strict=True):
        del row["stars_per_second"], wanted["stars_per_second"]
        assert row == pytest.approx(wanted, rel=1e-8)
    # And what is finished is not done again.
    again = train(SHAPE, PLAIN, interrupted(0), settings, tmp_path / "cut", resume=True)
    assert_equal(weights_of(again), weights_of(undisturbed))


def test_fault_12_all_that_is_random_is_seeded(tmp_path):
    state = torch.get_rng_state()
    first = weights_of(train(SHAPE, PLAIN, draw, QUICK, tmp_path / "1"))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(77)
    np.random.seed(77)  # noqa: NPY002
    assert_equal(weights_of(train(SHAPE, PLAIN, draw, QUICK, tmp_path / "2")), first)
    other = weights_of(train(SHAPE, PLAIN, draw, with_(QUICK, seed=1), tmp_path / "3"))
    assert not torch.equal(other["mean.weight"], first["mean.weight"])


def test_a_longer_training_goes_on_from_a_shorter_one(tmp_path):
    whole = train(SHAPE, PLAIN, draw, QUICK, tmp_path / "whole")
    train(SHAPE, PLAIN, draw, with_(QUICK, steps=8), tmp_path / "short")
    longer = train(SHAPE, PLAIN, draw, QUICK, tmp_path / "short", resume=True)
    assert_equal(weights_of(longer), weights_of(whole))


def test_a_checkpoint_of_another_training_is_refused_and_named(tmp_path):
    train(SHAPE, PLAIN, draw, QUICK, tmp_path)
    with pytest.raises(ResumeError, match=r"holds the checkpoint(.|\n)*what to do: resume it"):
        train(SHAPE, PLAIN, draw, QUICK, tmp_path)
    for fault, arguments in {
        "wanted: rate = 0.01, as(.|\n)*found: rate = 0.1": (SHAPE, PLAIN, with_(QUICK, rate=0.1)),
        "network.width = 8(.|\n)*network.width = 4": (Shape(6, 4, (), ((2, 4),)), PLAIN, QUICK),
        "found: center": (SHAPE, Standardisation(np.ones(6), np.ones(6)), QUICK),
    }.items():
        shape, standardisation, settings = arguments
        with pytest.raises(ResumeError, match=rf"of another training(.|\n)*{fault}"):
            train(shape, standardisation, draw, settings, tmp_path, resume=True)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ResumeError, match="cannot be read"):
        train(SHAPE, PLAIN, draw, QUICK, tmp_path, resume=True)


def test_no_pickle_is_written(tmp_path):
    train(SHAPE, PLAIN, draw, QUICK, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("checkpoint.safetensors", "learning_curve.csv"),
    ]
    # safetensors begins with the length of a JSON header: nothing in it can be executed.
    content = (tmp_path / "checkpoint.safetensors").read_bytes()
    assert content[8:9] == b"{"


def test_fault_1_mixed_precision_goes_by_the_kind_of_device_not_by_its_name(monkeypatch):
    for name in ("cuda", "cuda:0", "cuda:3"):
        half = Mixed.choose(name, "float16")
        assert half.device.type == "cuda"
        assert half.scaled
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        assert Mixed.choose(name, "auto").dtype is torch.bfloat16
        assert not Mixed.choose(name, "auto").scaled
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
        assert Mixed.choose(name, "auto").scaled
    assert Mixed.choose("cpu", "auto").dtype is torch.float32


def test_fault_1_float16_scales_its_loss_so_that_small_gradients_survive(tmp_path):
    """Without a scale, gradients below 6e-8 are 0 in float16: labels known badly have such."""

    def vague(seed, n):
        values, _ = draw(seed, n)
        return values, np.full((n, 6), 3e4)

    quick = with_(QUICK, steps=8, weight_decay=0.0, precision="float16")
    torch.manual_seed(seeds_of(quick.seed, 0, 2)[0])
    before = Transformer(SHAPE).state_dict()
    scaled = train(SHAPE, PLAIN, vague, quick, tmp_path / "scaled")
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
        run = module._Run(plain, QUICK, Mixed.choose("cpu", name))
        run._loss(run.network, questions(0)).backward()
        assert {weight.dtype for weight in run.network.parameters()} == {torch.float32}
        gradients.append(torch.cat([w.grad.flatten() for w in run.network.parameters()]))
    exact, mixed = gradients
    assert torch.nn.functional.cosine_similarity(exact, mixed, dim=0) > 0.999
    assert mixed.norm().item() == pytest.approx(exact.norm().item(), rel=0.02)


def test_the_rate_is_pytorchs_cosine_with_warm_restarts():
    settings = with_(QUICK, rate=0.3, minimum_rate=0.01, restart_steps=7)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([weight], lr=0.3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimiser, 7, eta_min=0.01)
    for step in range(30):
        assert settings.rate_at(step) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-9)
        optimiser.step()
        theirs.step()
    warm = with_(settings, warm_steps=4)
    ratios = [warm.rate_at(step) / settings.rate_at(step) for step in range(6)]
    assert ratios == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])


def test_the_optimiser_is_adamw(tmp_path):
    """Steps with given gradients, against the published update (Loshchilov & Hutter 2019)."""
    settings = with_(QUICK, weight_decay=0.1, steps=3)
    run = module._Run(SHAPE, settings, Mixed.choose("cpu", "float32"))
    name, weight = "mean.weight", dict(run.network.named_parameters())["mean.weight"]
    wanted, m, v = weight.detach().clone().double(), 0.0, 0.0
    for step in range(3):
        batch = questions(step)
        run.step(batch, step)
        gradient, rate = weight.grad.double(), settings.rate_at(step)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        ahead, spread = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
        wanted = wanted * (1 - rate * 0.1) - rate * ahead / (spread.sqrt() + 1e-8)
        torch.testing.assert_close(weight.detach().double(), wanted, rtol=0, atol=1e-6, msg=name)


def test_the_average_is_the_moving_one_of_the_weights():
    settings = with_(QUICK, average=0.6)
    run = module._Run(SHAPE, settings, Mixed.choose("cpu", "float32"))
    wanted = {name: w.detach().clone() for name, w in run.network.named_parameters()}
    for step in range(12):
        run.step(questions(step), step)
        decay = min(0.6, (1 + step) / (10 + step))
        for name, weight in run.network.named_parameters():
            wanted[name] = decay * wanted[name] + (1 - decay) * weight.detach()
    for name, weight in run.result().named_parameters():
        torch.testing.assert_close(weight, wanted[name], rtol=0, atol=1e-6)


def questions(seed):
    values, errors = (torch.tensor(x).float() for x in draw(seed, 32))
    ids = torch.where(values.isnan(), 0, torch.arange(1, 7))
    order = (ids > 0).sum(1).argsort(descending=True)
    values, ids, errors = values[order], ids[order], errors[order]
    x = values.nan_to_num(0.0)
    return Sample(ids, x, torch.arange(1, 7).expand(32, 6), x, errors, ids > 0)


def test_parts_change_what_is_computed_not_what_comes_out(tmp_path):
    plain = Shape(**{**vars(SHAPE), "dropout": 0.0})
    runs = [
        train(plain, PLAIN, draw, with_(QUICK, parts=parts), tmp_path / str(parts))
        for parts in (1, 3, 50)
    ]
    for other in runs[1:]:
        for name, weight in weights_of(runs[0]).items():
            torch.testing.assert_close(other.network.state_dict()[name], weight, rtol=0, atol=2e-4)


def test_fault_11_a_table_smaller_than_a_batch_and_one_token_a_star_are_trained_on(tmp_path):
    values = np.full((3, 6), np.nan)
    values[[0, 1, 2], [0, 3, 5]] = 1.0
    few = Table(np.arange(3), values, np.zeros((3, 6)))
    trained = train(SHAPE, PLAIN, few.draw, QUICK, tmp_path, validation=(values[:1], values[:1]))
    assert trained.asked.tolist()[1] == 0
    assert trained.asked.sum() == QUICK.steps * QUICK.batch
    assert np.isfinite(trained.history[-1]["validation_loss"])


def test_a_training_that_diverges_says_so_and_keeps_its_last_good_checkpoint(tmp_path):
    def bad(seed, n):
        values, errors = draw(seed, n)
        steps.append(seed)
        return (values if len(steps) <= 5 else values * 1e30), errors

    steps: list[int] = []
    with pytest.raises(CatalogprocError, match=r"diverged(.|\n)*before step 6"):
        train(SHAPE, PLAIN, bad, QUICK, tmp_path)
    tensors, facts = load_checkpoint(tmp_path)
    assert facts["step"] == 4
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert [row["step"] for row in read_curve(tmp_path)] == [2, 4]


def test_progress_and_curve_say_the_same(tmp_path):
    seen = []
    trained = train(
        SHAPE, PLAIN, draw, with_(QUICK, steps=11), tmp_path, validation=draw(10**6, 50),
        progress=lambda step, steps, metrics: seen.append((step, steps, dict(metrics))),
    )  # fmt: skip
    assert [step for step, _, _ in seen] == [2, 4, 6, 8, 10, 11]
    assert {steps for _, steps, _ in seen} == {11}
    lines = (tmp_path / "learning_curve.csv").read_text().splitlines()
    assert lines[0] == "step,loss,validation_loss,rate,stars_per_second"
    assert len(lines) == 7
    for (step, _, metrics), row, read in zip(
        seen, trained.history, read_curve(tmp_path), strict=True
    ):
        assert row == {"step": step, **metrics}
        assert read == pytest.approx(row, rel=1e-8)
        assert ("validation_loss" in row) == (step in (4, 8, 11))


def test_settings_refuse_nonsense_by_name():
    assert Settings.from_dict({"steps": 5, "rate": 1}) == Settings(steps=5, rate=1)
    for fault, content in {
        r"unknown field(.|\n)*found: epochs": {"epochs": 3},
        r"wrong type(.|\n)*where: steps": {"steps": 1.5},
        r"wrong type(.|\n)*where: batch": {"batch": True},
        r"wrong type(.|\n)*where: rate": {"rate": "fast"},
        r"must be positive(.|\n)*where: targets": {"targets": 0},
        r"not negative(.|\n)*where: seed": {"seed": -1},
        r"must be a range": {"min_tokens": 70},
        r"below 1(.|\n)*where: average": {"average": 1.0},
        r"falls on a report": {"report_steps": 300},
        r"must not be negative(.|\n)*where: repeat": {"repeat": -0.1},
        r"unknown precision(.|\n)*found: int8": {"precision": "int8"},
    }.items():
        with pytest.raises(JobError, match=fault):
            Settings.from_dict(content)
    for weights in (np.ones(5), -np.ones(6), np.zeros(6)):
        with pytest.raises(JobError, match="wrong weights"):
            train(SHAPE, PLAIN, draw, QUICK, None, weights=weights)


def test_no_warning_is_kept_quiet():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Mixed.choose("cpu", "float16").scaler()
    assert not caught
