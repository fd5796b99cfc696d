"""The hidden Markov model behind the aligner: likelihood, best path and prior against brute force."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom

from model.acoustic.alignment import (
    IMPOSSIBLE,
    best_path,
    binarization_loss,
    diagonal_prior,
    forward_sum_loss,
    token_of_frame,
)

shapes = st.tuples(st.integers(1, 5), st.integers(0, 4), st.integers(0, 10_000))  # tokens, spare frames, seed


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
