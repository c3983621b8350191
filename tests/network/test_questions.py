"""Two questions about a star: from one encoding where tokens are late, else from two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.bundles import tiny_bundle

from catalogproc.errors import JobError
from catalogproc.network.bundle import Bundle
from catalogproc.network.error_propagation import differentiate
from catalogproc.network.jacobian import ReversePass
from catalogproc.network.packed_tokens import PackedTokens
from catalogproc.network.predictor import Predictor
from catalogproc.network.questions import Questions
from catalogproc.network.shape import Shape
from catalogproc.network.star_tokens import StarTokens
from catalogproc.network.transformer import Transformer
from catalogproc.training.vocabulary_extension import extended_shape

V, LATE = 20, 7
SHAPE = Shape(V, 16, ((4, 24), (2, 16)), ((4, 32), (2, 16)), (24,), dropout=0.0, late=(LATE,))
REQUESTS = torch.tensor([1, 2, 3])
LABELS = ("teff", "logg", "g_fakemag", "mass")
CONTEXT = ("teff", "logg")


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("late"), late=("g_fakemag",))


def network(shape: Shape = SHAPE) -> Transformer:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return Transformer(shape).double().eval().requires_grad_(False)


def star(value: float = 0.3) -> PackedTokens:
    """Two stars; the first has the late token in its third slot, the second has not."""
    ids = torch.tensor([[4, 5, LATE, 9, 12], [4, 5, 9, 12, 0]])
    values = torch.tensor([[0.2, -1.0, value, 0.7, 1.1], [0.5, 0.1, -0.4, 0.3, 0.0]])
    return PackedTokens(ids, values.double())


def stars(bundle: Bundle, count: int = 12) -> StarTokens:
    """Of every second star the luminosity is unknown."""
    random, scales = np.random.default_rng(4), bundle.standardisation
    values = scales.center + scales.scale * random.normal(size=(count, len(bundle.vocabulary)))
    values[:, 40:] = np.where(random.random(values[:, 40:].shape) < 0.3, np.nan, values[:, 40:])
    column = bundle.vocabulary.column("g_fakemag")
    values[::2, column] = np.nan
    values[1::2, column] = scales.center[column]
    values[:, bundle.vocabulary.columns(("teff", "logg", "mass"))] = np.nan
    return StarTokens.typical(values)


def questions(bundle: Bundle, tokens: StarTokens, late: bool = True) -> Questions:
    hidden = np.zeros(tokens.values.shape, dtype=bool)
    hidden[:, bundle.vocabulary.column("g_fakemag")] = True
    if not late:  # a token that is not late is hidden from one star
        hidden[1, 0] = True
    return Questions(Predictor(bundle), hidden, ("g_fakemag",))


def test_a_late_token_changes_no_other_token_in_the_encoder() -> None:
    made = network()
    one, other = (made.encode(star(value))[0] for value in (0.3, 5.0))
    others = torch.tensor([0, 1, 3, 4])
    assert torch.equal(one[0, others], other[0, others])
    assert torch.equal(one[1], other[1])
    assert (one[0, 2] != other[0, 2]).all()
    # It is decoded all the same, and it reads the others.
    assert (made(star(0.3), REQUESTS)[0][0] != made(star(5.0), REQUESTS)[0][0]).all()
    ids, values = star().ids, star().values.clone()
    values[0, 0] += 1.0
    assert (made.encode(PackedTokens(ids, values))[0][0, 2] != one[0, 2]).all()


def test_hiding_a_late_token_from_the_decoder_is_leaving_it_out() -> None:
    made, packed = network(), star()
    memory, present = made.encode(packed)
    hidden = packed.without((LATE,))[:, None, :].expand(-1, len(REQUESTS), -1)
    found = made.decode(memory, hidden, REQUESTS)[0]
    alone = PackedTokens(packed.ids[:1, [0, 1, 3, 4]], packed.values[:1, [0, 1, 3, 4]])
    torch.testing.assert_close(found[:1], made(alone, REQUESTS)[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[1], made.decode(memory, present, REQUESTS)[0][1])


def test_derivatives_with_a_late_token_equal_those_of_automatic_differentiation() -> None:
    made, packed = network(), star()
    values = packed.values.clone().requires_grad_(True)
    mean = made(PackedTokens(packed.ids, values), REQUESTS)[0]
    rows = [torch.autograd.grad(mean[:, k].sum(), values, retain_graph=True)[0] for k in range(3)]
    wanted = torch.stack(rows, 1).masked_fill((packed.ids == 0)[:, None, :], 0.0)
    found = ReversePass(made)(packed, REQUESTS).jacobian
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    assert (found[0, :, 2] != 0).all()


def test_one_encoding_gives_what_two_give(late: Bundle) -> None:
    tokens = stars(late)
    ask = questions(late, tokens)
    found, context = ask.ask(tokens, LABELS, CONTEXT)
    predictor, column = ask.predictor, late.vocabulary.column("g_fakemag")
    seen = predictor.predict(tokens, LABELS)
    unseen = predictor.predict(tokens.without(column), LABELS)
    places = [LABELS.index(label) for label in ("teff", "logg", "mass")]
    np.testing.assert_allclose(found.mean[:, places], seen.mean[:, places], rtol=1e-5)
    np.testing.assert_allclose(found.sigma[:, 2], unseen.sigma[:, 2], rtol=1e-5)
    np.testing.assert_allclose(found.mean[:, 2], unseen.mean[:, 2], rtol=1e-5)
    np.testing.assert_allclose(context.mean, unseen.mean[:, :2], rtol=1e-5)
    assert context.labels == CONTEXT
    assert (found.mean[1::2, 0] != context.mean[1::2, 0]).all()
    for name in ("mean", "sigma"):
        by_two = questions(late, tokens, late=False).predict(tokens, LABELS)
        whole = np.arange(len(tokens)) != 1
        np.testing.assert_allclose(getattr(by_two, name)[whole], getattr(found, name)[whole], 1e-5)


def test_tokens_may_be_the_stars_several_times(late: Bundle) -> None:
    tokens = stars(late)
    several = StarTokens(np.tile(tokens.values, (3, 1)), np.tile(tokens.errors, (3, 1)))
    for one_encoding in (True, False):
        ask = questions(late, tokens, late=one_encoding)
        once, thrice = ask.predict(tokens, LABELS), ask.predict(several, LABELS)
        np.testing.assert_allclose(thrice.mean, np.tile(once.mean, (3, 1)), rtol=1e-5)


def test_an_independent_label_has_no_derivative_by_what_it_does_not_read(late: Bundle) -> None:
    tokens = stars(late)
    prediction, jacobian = questions(late, tokens).differentiate(tokens, LABELS)
    column = late.vocabulary.column("g_fakemag")
    assert (jacobian.values[:, 2, column] == 0).all()
    assert (jacobian.values[1::2, 1, column] != 0).all()
    for shown, places in ((tokens, [0, 1, 3]), (tokens.without(column), [2])):
        mean, wanted = differentiate(Predictor(late), shown, LABELS)
        np.testing.assert_allclose(
            jacobian.values[:, places], wanted.values[:, places], rtol=1e-3, atol=1e-6
        )
        np.testing.assert_allclose(prediction.mean[:, places], mean.mean[:, places], rtol=1e-5)
    assert jacobian.units.tolist() == wanted.units.tolist()


def test_a_shape_with_late_tokens_is_stored_and_one_without_has_the_text_of_before() -> None:
    assert Shape.from_dict(SHAPE.to_dict()) == SHAPE
    assert "late" not in Shape(V).to_dict()
    for wrong in ((0,), (V + 1,), ("g_fakemag",)):
        with pytest.raises(JobError, match="enter at the decoder"):
            Shape(V, late=wrong)  # type: ignore[arg-type]


def test_a_training_names_its_late_tokens(late: Bundle, tmp_path: Path) -> None:
    vocabulary = late.vocabulary
    number = vocabulary.number("g_fakemag")
    assert late.shape.late == (number,)
    new = extended_shape({"width": 16, "late": ["g_fakemag"]}, vocabulary, None)
    assert new.late == (number,)
    plain = tiny_bundle(tmp_path)
    assert extended_shape({"late": ["g_fakemag"]}, vocabulary, plain).late == (number,)
    assert extended_shape({}, vocabulary, late).late == (number,)
