"""Attention as the filter and the guide of the alignment's hidden Markov model: forward attention, location, guidance.

`model.acoustic.alignment` holds the likelihood, the best path and the prior of the same model. Shapes: B batch,
S frames, T tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.acoustic.alignment import IMPOSSIBLE
from model.acoustic.layers import sequence_mask

WINDOW = 3
"""Tokens that a masked frame may look ahead of the likeliest token of the frame before."""
LOCATION_FILTERS, LOCATION_KERNEL = 8, 31


def forward_attention(log_emission: Tensor, advance: Tensor | None = None, window: int | None = None) -> Tensor:
    """Filter of the left-to-right hidden Markov model: where each frame stands, given all frames up to it.

    Each frame stays with its token or advances by one (Forward Attention, arXiv:1807.06736). With a constant advance
    probability of one half, the log-odds of 0, this is exactly the forward recursion, normalised at each frame.

    Args:
        log_emission: (B, S, T) log-probabilities, padded tokens at `IMPOSSIBLE`.
        advance: (B, S) log-odds of advancing into each frame (the paper's transition agent); None means even odds.
        window: A frame may reach from the likeliest token of the frame before to so many tokens ahead; one token back
            keeps a hundredth of the largest share, everything else nothing. None means no such mask.

    Returns:
        (B, S, T) log-probabilities, each frame a distribution over tokens; never below `IMPOSSIBLE`.
    """
    log_emission = log_emission.float()
    odds = log_emission.new_zeros(log_emission.shape[:2]) if advance is None else advance.float()
    stay, move = F.logsigmoid(-odds)[:, :, None], F.logsigmoid(odds)[:, :, None]  # (B, S, 1)
    start = torch.full_like(log_emission[:, 0], IMPOSSIBLE)
    start[:, 0] = 0.0
    alphas = [start]
    for s in range(1, log_emission.shape[1]):
        before = alphas[-1]
        moved = F.pad(before[:, :-1], (1, 0), value=IMPOSSIBLE)
        alpha = torch.logaddexp(before + stay[:, s], moved + move[:, s]) + log_emission[:, s]
        if window is not None:
            alpha = _within_window(alpha, before.argmax(1, keepdim=True), window)
        alphas.append((alpha - alpha.logsumexp(1, keepdim=True)).clamp(min=IMPOSSIBLE))
    return torch.stack(alphas, dim=1)


def _within_window(alpha: Tensor, likeliest: Tensor, window: int) -> Tensor:
    ahead = torch.arange(alpha.shape[1], device=alpha.device) - likeliest  # (B, T)
    inside = (ahead >= 0) & (ahead <= window)
    peak = alpha.masked_fill(~inside, IMPOSSIBLE).amax(1, keepdim=True)
    back = peak.expand_as(alpha) - 4.605  # log(0.01); at the first token there is nothing behind, so it hits none
    return torch.where(inside, alpha, torch.where(ahead == -1, back, torch.full_like(alpha, IMPOSSIBLE)))


class LocationTerm(nn.Module):
    """Location-sensitive part of the alignment scores (arXiv:1506.07503): from where the attention was.

    A convolution over the tokens sees the alignment of the frame before and the sum of all before it. The term is
    bounded by 1 nat, which keeps its parallel form stable (see `refine`); this bound is ours.
    """

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv1d(2, LOCATION_FILTERS, LOCATION_KERNEL, padding=LOCATION_KERNEL // 2)
        self.output = nn.Linear(LOCATION_FILTERS, 1)
        self.gate = nn.Parameter(torch.tensor(0.1))

    def forward(self, previous: Tensor, cumulative: Tensor) -> Tensor:
        """Alignment of the frame before and sum of all before, (B, S, T) each -> (B, S, T) in -1 to 1."""
        batch, frames, tokens = previous.shape
        history = torch.stack((previous, cumulative.log1p()), dim=2).view(batch * frames, 2, tokens)
        hidden = self.convolution(history).tanh().transpose(1, 2)  # (B * S, T, filters)
        return self.gate.tanh() * self.output(hidden).tanh().view(batch, frames, tokens)

    def refine(self, scores: Tensor, token_mask: Tensor, iterations: int) -> Tensor:
        """Log-alignment whose scores include the term, by fixed-point iteration over all frames at once.

        Each iteration takes the history from the last iterate, so after k of them the first k frames are exact, and
        after S all are: then it equals `refine_in_order`.

        Args:
            scores: (B, S, T) without the term.
            token_mask: (B, T).
            iterations: Of the whole clip.
        """
        log_soft = normalise(scores, token_mask)
        for _ in range(iterations):
            previous = F.pad(log_soft.exp()[:, :-1], (0, 0, 1, 0))
            log_soft = normalise(scores + self(previous, previous.cumsum(1)), token_mask)
        return log_soft

    def refine_in_order(self, scores: Tensor, token_mask: Tensor) -> Tensor:
        """The definition of `refine`: frame by frame, each with its true history."""
        previous = torch.zeros_like(scores[:, :1])
        cumulative, rows = previous, []
        for s in range(scores.shape[1]):
            cumulative = cumulative + previous
            rows.append(normalise(scores[:, s : s + 1] + self(previous, cumulative), token_mask))
            previous = rows[-1].exp()
        return torch.cat(rows, dim=1)


def normalise(scores: Tensor, token_mask: Tensor) -> Tensor:
    """Scores (B, S, T) -> log-probabilities over the tokens of each frame, padded tokens at `IMPOSSIBLE`."""
    padding = ~token_mask[:, None, :]
    return F.log_softmax(scores.masked_fill(padding, IMPOSSIBLE), dim=-1).masked_fill(padding, IMPOSSIBLE)


def guided_attention_loss(log_soft: Tensor, token_lengths: Tensor, mel_lengths: Tensor, sigma: float) -> Tensor:
    """Mean over frames of how far from the diagonal the soft alignment is, 0 to 1 (arXiv:1710.08969). Scalar.

    The weight of (frame s, token t) is 1 - exp(-(s / S - t / T)^2 / (2 sigma^2)): 0 on the diagonal.
    """
    frames, tokens = (torch.arange(size, device=log_soft.device) for size in log_soft.shape[1:])
    distance = frames[None, :, None] / mel_lengths[:, None, None] - tokens / token_lengths[:, None, None]
    weight = 1 - torch.exp(-distance.square() / (2 * sigma**2))  # (B, S, T)
    mask = sequence_mask(mel_lengths, log_soft.shape[1])[:, :, None]
    return (log_soft.exp() * weight * mask).sum() / mask.sum()
