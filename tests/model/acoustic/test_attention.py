"""Forward, location-sensitive and guided attention, against their definitions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.acoustic.alignment import IMPOSSIBLE, best_path, best_path_on_device, forward_sum_loss
from model.acoustic.attention import (
    WINDOW,
    LocationTerm,
    forward_attention,
    guided_attention_loss,
    masked_log_softmax,
)

shapes = st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(0, 10_000))  # tokens, frames, seed


def random_emission(batch, frames, tokens, seed=0, sharpness=2.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, frames, tokens, generator=generator).mul(sharpness).log_softmax(2)


def filtering_posterior(emission, advance):
    """Returns the posterior of each frame's token given the frames up to it, by recursion on probabilities."""
    frames, tokens = emission.shape
    alpha = torch.zeros(frames, tokens, dtype=torch.float64)
    alpha[0, 0] = 1.0
    for s in range(1, frames):
        for t in range(tokens):
            moved = alpha[s - 1, t - 1] * advance[s] if t else 0.0
            alpha[s, t] = (alpha[s - 1, t] * (1 - advance[s]) + moved) * emission[s, t].exp()
        alpha[s] /= alpha[s].sum()
    return alpha


@given(shapes)
@settings(max_examples=40, deadline=None)
def test_forward_attention_with_even_odds_is_the_posterior_of_the_hidden_markov_model(shape):
    tokens, frames, seed = shape
    emission = random_emission(1, frames, tokens, seed)
    wanted = filtering_posterior(emission[0].double(), torch.full((frames,), 0.5))
    torch.testing.assert_close(forward_attention(emission)[0].exp().double(), wanted, atol=1e-5, rtol=1e-4)


def test_transition_odds_enter_the_posterior():
    emission, odds = random_emission(1, 8, 4), torch.linspace(-2, 2, 8)[None]
    wanted = filtering_posterior(emission[0].double(), odds[0].double().sigmoid())
    torch.testing.assert_close(forward_attention(emission, odds)[0].exp().double(), wanted, atol=1e-5, rtol=1e-4)


def test_the_unnormalized_posterior_sums_to_the_likelihood_of_the_forward_sum_loss():
    emission = random_emission(1, 9, 4, seed=3)
    alpha = torch.full((4,), -torch.inf).double()
    alpha[0] = emission[0, 0, 0].double()
    for s in range(1, 9):  # the last value is the likelihood of all paths
        moved = torch.cat((torch.tensor([-torch.inf]).double(), alpha[:-1]))
        alpha = torch.logaddexp(alpha, moved) + emission[0, s].double()
    lengths = torch.tensor([4]), torch.tensor([9])
    assert float(forward_sum_loss(emission, *lengths, IMPOSSIBLE)) == pytest.approx(-float(alpha[-1]) / 9, rel=1e-4)


def test_masked_forward_attention_is_monotonic_with_bounded_steps():
    emission = random_emission(2, 30, 12, seed=1, sharpness=6.0)
    soft = forward_attention(emission, window=WINDOW).exp()
    likeliest = soft.argmax(2)
    steps = likeliest.diff(dim=1)
    assert int(steps.min()) >= 0
    assert int(steps.max()) <= WINDOW
    tokens = torch.arange(12)
    for s in range(1, 30):
        before = likeliest[:, s - 1 : s]
        outside = (tokens < before - 1) | (tokens > before + WINDOW)
        assert float(soft[:, s].masked_select(outside).sum()) == 0
    assert float(soft[:, 0, -1].max()) == 0
    assert float(soft[:, 1, -1].max()) == 0
    torch.testing.assert_close(soft.sum(2), torch.ones(2, 30), atol=1e-4, rtol=0)


def test_impossible_emissions_produce_no_nan():
    emission = torch.full((1, 5, 3), IMPOSSIBLE)
    for window in (None, WINDOW):
        assert bool(forward_attention(emission, window=window).isfinite().all())


@given(shapes)
@settings(max_examples=40, deadline=None)
def test_the_tensor_form_of_the_best_path_equals_the_compiled_one(shape):
    tokens, frames, seed = shape
    frames += tokens
    emission = random_emission(3, frames, tokens, seed)
    odds = torch.randn(3, frames, generator=torch.Generator().manual_seed(seed))
    token_lengths = torch.tensor([tokens, max(tokens - 1, 1), tokens])
    mel_lengths = torch.tensor([frames, frames - 1, tokens])
    lengths = (token_lengths, mel_lengths)
    assert best_path(emission, *lengths, odds).tolist() == best_path_on_device(emission, *lengths, odds).tolist()


def test_transition_odds_enter_the_best_path():
    emission = torch.zeros(1, 6, 2)
    odds = torch.full((1, 6), -5.0)
    odds[0, 4] = 5.0
    assert best_path(emission, torch.tensor([2]), torch.tensor([6]), odds).tolist() == [[4, 2]]


@pytest.fixture
def location():
    torch.manual_seed(2)
    term = LocationTerm()
    with torch.no_grad():
        term.gate.fill_(1.0)
        for parameter in term.convolution.parameters():
            parameter.mul_(4.0)
    return term


def refine_sequentially(location, scores, token_mask):
    """Computes the log-alignment frame by frame, each from its true history."""
    previous = torch.zeros_like(scores[:, :1])
    cumulative, rows = previous, []
    for s in range(scores.shape[1]):
        cumulative = cumulative + previous
        rows.append(masked_log_softmax(scores[:, s : s + 1] + location(previous, cumulative), token_mask))
        previous = rows[-1].exp()
    return torch.cat(rows, dim=1)


def test_enough_iterations_of_the_location_term_equal_the_sequential_computation(location):
    scores, mask = random_emission(2, 12, 7), torch.ones(2, 7, dtype=torch.bool)
    mask[1, 5:] = False
    with torch.no_grad():
        wanted = refine_sequentially(location, scores, mask)
        torch.testing.assert_close(location.refine(scores, mask, 12), wanted, atol=1e-5, rtol=1e-5)
        errors = [float((location.refine(scores, mask, k).exp() - wanted.exp()).abs().max()) for k in (0, 2, 12)]
    assert errors[0] > errors[1] >= errors[2]


def test_the_location_term_depends_on_previous_and_cumulative_alignment(location):
    previous, cumulative = torch.rand(1, 10, 6), torch.rand(1, 10, 6)
    with torch.no_grad():
        term = location(previous, cumulative)
        assert float((location(previous.flip(2), cumulative) - term).abs().max()) > 1e-3
        assert float((location(previous, cumulative.flip(2)) - term).abs().max()) > 1e-3


def test_the_location_term_is_bounded_and_causal(location):
    scores, mask = random_emission(1, 10, 6, sharpness=5.0), torch.ones(1, 6, dtype=torch.bool)
    with torch.no_grad():
        assert float(location(torch.rand(1, 10, 6), 9 * torch.rand(1, 10, 6)).abs().max()) <= 1
        before = location.refine(scores, mask, 10)
        scores[0, 6:] += torch.randn(4, 6)
        after = location.refine(scores, mask, 10)
    torch.testing.assert_close(after[:, :6], before[:, :6])


def hard(path, tokens):
    log_soft = torch.full((1, len(path), tokens), IMPOSSIBLE)
    log_soft[0, torch.arange(len(path)), torch.tensor(path)] = 0.0
    return log_soft


def test_guided_attention_loss_is_zero_on_the_diagonal_and_grows_away_from_it():
    lengths = torch.tensor([8]), torch.tensor([8])
    diagonal, shifted, reversed_ = list(range(8)), [0, 0, 0, 1, 2, 3, 4, 5], list(range(7, -1, -1))
    losses = [float(guided_attention_loss(hard(p, 8), *lengths, 0.2)) for p in (diagonal, shifted, reversed_)]
    assert losses[0] == 0
    assert 0 < losses[1] < losses[2] < 1


def test_guided_attention_loss_is_the_published_penalty():
    uniform = torch.full((1, 6, 3), 1 / 3).log()
    weights = [1 - math.exp(-((s / 6 - t / 3) ** 2) / (2 * 0.2**2)) for s in range(6) for t in range(3)]
    loss = guided_attention_loss(uniform, torch.tensor([3]), torch.tensor([6]), 0.2)
    assert float(loss) == pytest.approx(sum(weights) / len(weights), rel=1e-5)


def test_guided_attention_loss_ignores_padding():
    log_soft = masked_log_softmax(torch.randn(1, 12, 9), torch.ones(1, 9, dtype=torch.bool))
    lengths = torch.tensor([5]), torch.tensor([7])
    alone = guided_attention_loss(log_soft[:, :7, :5], *lengths, 0.3)
    padded = torch.full((1, 12, 9), IMPOSSIBLE)
    padded[:, :7, :5] = log_soft[:, :7, :5]
    padded[:, 7:] = 0.0
    torch.testing.assert_close(guided_attention_loss(padded, *lengths, 0.3), alone)
