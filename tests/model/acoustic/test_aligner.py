"""The location-sensitive term of the aligner: its parallel form, inputs, bound and causality."""

import pytest
import torch

from model.acoustic.aligner import LocationTerm
from model.acoustic.alignment import masked_log_softmax


def random_scores(batch, frames, tokens, sharpness=2.0):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, frames, tokens, generator=generator).mul(sharpness).log_softmax(2)


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
    scores, mask = random_scores(2, 12, 7), torch.ones(2, 7, dtype=torch.bool)
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
    scores, mask = random_scores(1, 10, 6, sharpness=5.0), torch.ones(1, 6, dtype=torch.bool)
    with torch.no_grad():
        assert float(location(torch.rand(1, 10, 6), 9 * torch.rand(1, 10, 6)).abs().max()) <= 1
        before = location.refine(scores, mask, 10)
        scores[0, 6:] += torch.randn(4, 6)
        after = location.refine(scores, mask, 10)
    torch.testing.assert_close(after[:, :6], before[:, :6])
