"""The hidden Markov model of the alignment, against brute force: likelihood, best path, prior, posterior, losses."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom

from model.acoustic.alignment import (
    IMPOSSIBLE,
    WINDOW,
    best_path,
    best_path_on_device,
    binarization_loss,
    diagonal_prior,
    forward_attention,
    forward_sum_loss,
    guided_attention_loss,
    masked_log_softmax,
    token_of_frame,
)

shapes = st.tuples(st.integers(1, 5), st.integers(0, 4), st.integers(0, 10_000))  # tokens, spare frames, seed
long_shapes = st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(0, 10_000))  # tokens, frames, seed


def emission(tokens, frames, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, frames, tokens, generator=generator, dtype=torch.float64).mul(2).log_softmax(2)


def all_paths(tokens, frames):
    """Yields the durations of every monotonic path: all splits of `frames` into `tokens` positive numbers."""
    for cuts in itertools.combinations(range(1, frames), tokens - 1):
        yield np.diff([0, *cuts, frames])


def path_score(log_emission, durations):
    tokens = np.repeat(np.arange(len(durations)), durations)
    return sum(float(log_emission[0, s, t]) for s, t in enumerate(tokens))


@given(shapes)
@settings(max_examples=60, deadline=None)
def test_best_path_equals_brute_force(shape):
    tokens, spare, seed = shape
    frames = tokens + spare
    scores = emission(tokens, frames, seed)
    best = max(all_paths(tokens, frames), key=lambda durations: path_score(scores, durations))
    found = best_path(scores, torch.tensor([tokens]), torch.tensor([frames]))
    assert path_score(scores, found[0].numpy()) == pytest.approx(path_score(scores, best), abs=1e-5)
    assert int(found.sum()) == frames
    assert int(found.min()) >= 1


@given(shapes)
@settings(max_examples=40, deadline=None)
def test_forward_sum_without_blank_is_the_exact_likelihood(shape):
    tokens, spare, seed = shape
    frames = tokens + spare
    scores = emission(tokens, frames, seed)
    exact = -torch.logsumexp(torch.tensor([path_score(scores, d) for d in all_paths(tokens, frames)]), 0) / frames
    loss = forward_sum_loss(scores, torch.tensor([tokens]), torch.tensor([frames]), blank_logprob=IMPOSSIBLE)
    assert float(loss) == pytest.approx(float(exact), rel=1e-4, abs=1e-5)


def test_best_path_of_a_padded_batch_equals_each_clip_alone():
    lengths = [(3, 9), (6, 20), (1, 4)]
    scores = [emission(tokens, frames, seed) for seed, (tokens, frames) in enumerate(lengths)]
    batch = torch.full((3, 20, 6), 5.0, dtype=torch.float64)  # padding with the highest scores
    for row, score in zip(batch, scores, strict=True):
        row[: score.shape[1], : score.shape[2]] = score[0]
    together = best_path(batch, torch.tensor([3, 6, 1]), torch.tensor([9, 20, 4]))
    for row, score, (tokens, frames) in zip(together, scores, lengths, strict=True):
        assert row[:tokens].tolist() == best_path(score, torch.tensor([tokens]), torch.tensor([frames]))[0].tolist()
        assert row[tokens:].sum() == 0


def test_fewer_frames_than_tokens_is_an_error_with_both_numbers():
    with pytest.raises(ValueError, match="3 frames for 5 tokens"):
        best_path(torch.zeros(1, 3, 5), torch.tensor([5]), torch.tensor([3]))


def test_prior_rows_are_distributions_that_follow_the_diagonal():
    prior = diagonal_prior(torch.tensor([40]), torch.tensor([10]), 40, 10)[0].exp()
    assert torch.allclose(prior.sum(1), torch.ones(40), atol=1e-4)
    expected = (prior * torch.arange(10)).sum(1)
    assert bool((expected.diff() > 0).all())
    assert int(prior[0].argmax()) == 0
    assert int(prior[-1].argmax()) == 9


def test_the_prior_is_beta_binomial_and_finite_in_the_padding():
    lengths = [(1, 1), (4, 6), (120, 900), (3, 2)]
    tokens, frames = (torch.tensor(column) for column in zip(*lengths, strict=True))
    prior = diagonal_prior(frames, tokens, 900, 120)
    assert prior.shape == (4, 900, 120)
    assert bool(prior.isfinite().all())
    for row, (count, length) in zip(prior, lengths, strict=True):
        s = np.arange(1, length + 1)[:, None]
        law = betabinom(count - 1, s, length - s + 1).logpmf(np.arange(count))
        np.testing.assert_allclose(row[:length, :count], law, atol=1e-3, rtol=1e-5)


def test_binarization_is_zero_exactly_when_the_soft_alignment_is_the_hard_one():
    durations = torch.tensor([[2, 3, 1]])
    hard = torch.full((1, 6, 3), IMPOSSIBLE)
    for frame, token in enumerate([0, 0, 1, 1, 1, 2]):
        hard[0, frame, token] = 0.0
    lengths = torch.tensor([6])
    assert float(binarization_loss(hard, durations, lengths)) == 0
    vague = torch.full((1, 6, 3), 1 / 3).log()
    assert float(binarization_loss(vague, durations, lengths)) == pytest.approx(np.log(3), rel=1e-5)


def test_token_of_frame_repeats_each_token_for_its_duration():
    index = token_of_frame(torch.tensor([[2, 1, 3, 0]]), 8)
    assert index.tolist() == [[0, 0, 1, 2, 2, 2, 3, 3]]


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


@given(long_shapes)
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


@given(long_shapes)
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
