"""Attention mechanisms on the hidden Markov model of the alignment: forward, location-sensitive and guided attention.

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
"""Tokens that a frame may attend to beyond the likeliest token of the previous frame, under the mask."""
LOCATION_FILTERS, LOCATION_KERNEL = 8, 31


def forward_attention(log_emission: Tensor, advance: Tensor | None = None, window: int | None = None) -> Tensor:
    """Returns the filtering posterior of the left-to-right hidden Markov model: each frame's token given all frames
    up to it.

    Each frame stays at its token or advances by one (Forward Attention, arXiv:1807.06736). With a constant advance
    probability of one half (log-odds 0) this is exactly the forward recursion, normalized at each frame.

    Args:
        log_emission: (B, S, T) log-probabilities, padded tokens at `IMPOSSIBLE`.
        advance: (B, S) log-odds of advancing into each frame (the paper's transition agent); None means even odds.
        window: Number of tokens a frame may attend to beyond the likeliest token of the previous frame. The token
            before that one keeps a hundredth of the peak probability, all others none. None means no mask.

    Returns:
        (B, S, T) log-probabilities, a distribution over tokens for each frame; never below `IMPOSSIBLE`.
    """
    log_emission = log_emission.float()
    odds = log_emission.new_zeros(log_emission.shape[:2]) if advance is None else advance.float()
    stay, move = F.logsigmoid(-odds)[:, :, None], F.logsigmoid(odds)[:, :, None]  # (B, S, 1)
    start = torch.full_like(log_emission[:, 0], IMPOSSIBLE)
    start[:, 0] = 0.0
    alphas = [start]
    for s in range(1, log_emission.shape[1]):
        previous = alphas[-1]
        shifted = F.pad(previous[:, :-1], (1, 0), value=IMPOSSIBLE)
        alpha = torch.logaddexp(previous + stay[:, s], shifted + move[:, s]) + log_emission[:, s]
        if window is not None:
            alpha = _apply_window(alpha, previous.argmax(1, keepdim=True), window)
        alphas.append((alpha - alpha.logsumexp(1, keepdim=True)).clamp(min=IMPOSSIBLE))
    return torch.stack(alphas, dim=1)


def _apply_window(alpha: Tensor, likeliest: Tensor, window: int) -> Tensor:
    """Masks log-probabilities (B, T) outside the window that begins at the tokens `likeliest` (B, 1)."""
    ahead = torch.arange(alpha.shape[1], device=alpha.device) - likeliest  # (B, T)
    inside = (ahead >= 0) & (ahead <= window)
    peak = alpha.masked_fill(~inside, IMPOSSIBLE).amax(1, keepdim=True)
    back = peak.expand_as(alpha) - 4.605  # log(0.01)
    return torch.where(inside, alpha, torch.where(ahead == -1, back, torch.full_like(alpha, IMPOSSIBLE)))


class LocationTerm(nn.Module):
    """Location-sensitive term of the alignment scores (arXiv:1506.07503), computed from previous alignments.

    A convolution over the tokens reads the alignment of the previous frame and the sum of all earlier ones. Unlike the
    published term it is bounded by 1 nat, which keeps its parallel form stable (see `refine`).
    """

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(2, LOCATION_FILTERS, LOCATION_KERNEL, padding=LOCATION_KERNEL // 2)
        self.output = nn.Linear(LOCATION_FILTERS, 1)
        self.gate = nn.Parameter(torch.tensor(0.1))

    def forward(self, previous: Tensor, cumulative: Tensor) -> Tensor:
        """Returns the term (B, S, T) in -1 to 1 from the previous and the cumulative alignments, (B, S, T) each."""
        batch, frames, tokens = previous.shape
        history = torch.stack((previous, cumulative.log1p()), dim=2).view(batch * frames, 2, tokens)
        hidden = self.convolution(history).tanh().transpose(1, 2)  # (B * S, T, filters)
        return self.gate.tanh() * self.output(hidden).tanh().view(batch, frames, tokens)

    def refine(self, scores: Tensor, token_mask: Tensor, iterations: int) -> Tensor:
        """Returns the log-alignment (B, S, T) of scores that include the term, by parallel fixed-point iteration.

        Each iteration takes the history of every frame from the previous iterate. After k iterations the first k frames
        are exact; after S all of them are, and the result equals the sequential computation, frame by frame.

        Args:
            scores: (B, S, T) scores without the term.
            token_mask: (B, T) bool.
            iterations: Number of iterations.
        """
        log_soft = masked_log_softmax(scores, token_mask)
        for _ in range(iterations):
            previous = F.pad(log_soft.exp()[:, :-1], (0, 0, 1, 0))
            log_soft = masked_log_softmax(scores + self(previous, previous.cumsum(1)), token_mask)
        return log_soft


def masked_log_softmax(scores: Tensor, token_mask: Tensor) -> Tensor:
    """Normalizes scores (B, S, T) to log-probabilities over the tokens (B, T) of each frame; padding `IMPOSSIBLE`."""
    padding = ~token_mask[:, None, :]
    return F.log_softmax(scores.masked_fill(padding, IMPOSSIBLE), dim=-1).masked_fill(padding, IMPOSSIBLE)


def guided_attention_loss(log_soft: Tensor, token_lengths: Tensor, mel_lengths: Tensor, sigma: float) -> Tensor:
    """Returns the guided attention loss (arXiv:1710.08969), 0 to 1: the mean penalty of off-diagonal attention.

    The penalty of (frame s, token t) is 1 - exp(-(s / S - t / T)^2 / (2 sigma^2)): 0 on the diagonal.
    """
    frames, tokens = (torch.arange(size, device=log_soft.device) for size in log_soft.shape[1:])
    distance = frames[None, :, None] / mel_lengths[:, None, None] - tokens / token_lengths[:, None, None]
    weight = 1 - torch.exp(-distance.square() / (2 * sigma**2))  # (B, S, T)
    mask = sequence_mask(mel_lengths, log_soft.shape[1])[:, :, None]
    return (log_soft.exp() * weight * mask).sum() / mask.sum()
