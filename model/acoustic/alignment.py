"""Alignment as a left-to-right hidden Markov model: prior, likelihood (forward-sum) and best path (Viterbi).

One emission matrix, log-probabilities of token t at frame s, serves all three. A path starts at the first token, ends
at the last, and each frame stays or advances by one. Shapes: B batch, S frames, T tokens. Sources: One TTS Alignment
To Rule Them All (arXiv:2108.10447), Glow-TTS (arXiv:2005.11129).
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.acoustic.layers import sequence_mask

IMPOSSIBLE = -1e4
"""Log-probability of what cannot be: finite, so that no arithmetic on padding makes a NaN."""


def diagonal_prior(mel_lengths: Tensor, token_lengths: Tensor, frames: int, tokens: int) -> Tensor:
    """Beta-binomial prior that favours the diagonal: (B, S, T) float32 log-probabilities, of no meaning at padding.

    Frame s of S expects token t of T with the beta-binomial law of n = T - 1, alpha = s + 1, beta = S - s. All of these
    are whole, so that the law is a sum of log-factorials. Two of them depend on frame and token at once, through
    s + t alone: rows of a table whose every row is the one before moved by one. No clip waits for a device, and a
    training on hours of speech spends no tenth of a second a batch on gamma functions.

    Args:
        mel_lengths, token_lengths: (B,).
        frames, tokens: S and T of the batch.
    """
    size = frames + tokens
    whole = torch.arange(1, size + 1, dtype=torch.float64, device=mel_lengths.device)
    factorial = torch.lgamma(whole)  # of 0 to size - 1
    moved = factorial.unfold(0, tokens, 1)  # [i, j] is of i + j
    moved_back = F.pad(factorial.flip(0), (0, size)).unfold(0, tokens, 1)  # [i, j] is of size - 1 - i - j
    s, t = (torch.arange(length, device=mel_lengths.device) for length in (frames, tokens))
    last, n = mel_lengths[:, None] - 1, token_lengths[:, None] - 1
    of_frame = factorial[s] + factorial[(last - s).clamp(min=0)]
    of_token = factorial[t] + factorial[(n - t).clamp(min=0)]
    of_clip = factorial[last + 1] + factorial[n] - factorial[last + 1 + n]
    both = moved_back[size - 1 - last - n + s] + moved[:frames]  # (B, S, T): (last - s + n - t)! and (s + t)!
    return (both + (of_clip - of_frame)[:, :, None] - of_token[:, None, :]).float()


def forward_sum_loss(log_emission: Tensor, token_lengths: Tensor, mel_lengths: Tensor, blank_logprob: float) -> Tensor:
    """Negative log-likelihood per frame of the text given the speech, summed over all monotonic paths.

    Computed as a connectionist temporal classification loss over an added blank column. With `blank_logprob` = -1e4 it
    is exactly the likelihood of the left-to-right HMM; the published -1 lets frames skip, which is softer early on.

    Args:
        log_emission: (B, S, T) log-probabilities, padded tokens at `IMPOSSIBLE`.
        token_lengths, mel_lengths: (B,).
        blank_logprob: Log-score of the blank, before normalisation.

    Returns:
        Scalar: mean over clips of -log likelihood / frames. A clip with fewer frames than tokens contributes zero.
    """
    padded = F.pad(log_emission.float(), (1, 0), value=blank_logprob)  # (B, S, 1 + T)
    log_prob = padded.log_softmax(dim=-1).transpose(0, 1)  # (S, B, 1 + T)
    targets = torch.arange(1, log_emission.shape[2] + 1, device=log_emission.device)
    nll = F.ctc_loss(
        log_prob,
        targets.expand(log_emission.shape[0], -1),
        mel_lengths,
        token_lengths,
        blank=0,
        reduction="none",
        zero_infinity=True,
    )
    return (nll / mel_lengths).mean()


def best_path(
    log_emission: Tensor, token_lengths: Tensor, mel_lengths: Tensor, advance: Tensor | None = None
) -> Tensor:
    """Monotonic alignment search: frames per token on the most probable path.

    Compiled on a CPU; on another device its tensor form, which never waits for the device.

    Args:
        log_emission: (B, S, T).
        token_lengths, mel_lengths: (B,).
        advance: (B, S) log-odds of advancing into each frame; None means even odds.

    Returns:
        (B, T) int64 durations: each token of a clip at least 1, their sum the clip's frames; 0 at padding.

    Raises:
        ValueError: a clip has fewer frames than tokens, so no path exists (on a CPU; features hold no such clip).
    """
    odds = torch.zeros_like(log_emission[:, :, 0]) if advance is None else advance
    log_emission, odds = log_emission.detach(), odds.detach()
    if log_emission.device.type != "cpu":
        return best_path_on_device(log_emission, token_lengths, mel_lengths, odds)
    if bool((mel_lengths < token_lengths).any()):
        worst = int((mel_lengths - token_lengths).argmin())
        raise ValueError(
            f"clip {worst} of the batch has {int(mel_lengths[worst])} frames for {int(token_lengths[worst])} tokens: "
            "no token may take less than one frame; remove the clip or mend its transcript"
        )
    lengths = (token_lengths.numpy(), mel_lengths.numpy())
    return torch.from_numpy(_viterbi(log_emission.float().numpy(), odds.float().numpy(), *lengths))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _viterbi(log_emission, advance, token_lengths, mel_lengths):
    batch, most_frames, most_tokens = log_emission.shape
    durations = np.zeros((batch, most_tokens), dtype=np.int64)
    # One cell of room on the left stands for "no token before", so that the inner loop has no branch to mispredict.
    scores = np.empty((2, most_tokens + 1), dtype=np.float64)
    advanced = np.empty((most_frames, most_tokens), dtype=np.bool_)
    for b in range(batch):
        tokens, frames = token_lengths[b], mel_lengths[b]
        scores[:] = -np.inf
        scores[0, 1] = log_emission[b, 0, 0]
        for s in range(1, frames):
            before, after = scores[(s - 1) % 2], scores[s % 2]
            emission, row, odds = log_emission[b, s], advanced[s], advance[b, s]
            for t in range(tokens):
                stay, move = before[t + 1], before[t] + odds
                row[t] = move > stay
                after[t + 1] = max(move, stay) + emission[t]
        t = tokens - 1
        for s in range(frames - 1, 0, -1):
            durations[b, t] += 1
            t -= advanced[s, t]
        durations[b, t] += 1
    return durations


def best_path_on_device(log_emission: Tensor, token_lengths: Tensor, mel_lengths: Tensor, advance: Tensor) -> Tensor:
    """`best_path` in tensor operations only, on any device, without a wait for its results."""
    batch, frames, tokens = log_emission.shape
    emission = log_emission.double()
    position = torch.arange(tokens, device=emission.device)
    score = torch.where(position == 0, emission[:, 0], -torch.inf)  # (B, T)
    advanced = []
    for s in range(1, frames):
        moved = F.pad(score[:, :-1], (1, 0), value=-torch.inf) + advance[:, s, None]
        advanced.append(moved > score)
        score = torch.maximum(moved, score) + emission[:, s]
    durations = torch.zeros(batch, tokens, dtype=torch.int64, device=emission.device)
    token = (token_lengths - 1)[:, None]
    for s in range(frames - 1, -1, -1):
        inside = (s < mel_lengths)[:, None]
        durations.scatter_add_(1, token, inside.long())
        if s:
            token = token - (advanced[s - 1].gather(1, token) & inside).long()
    return durations


def binarization_loss(log_soft: Tensor, durations: Tensor, mel_lengths: Tensor) -> Tensor:
    """Mean over frames of -log of the soft alignment on the hard path: pulls the soft one onto it. Scalar."""
    mask = sequence_mask(mel_lengths, log_soft.shape[1])
    index = token_of_frame(durations, log_soft.shape[1])
    picked = log_soft.gather(2, index[:, :, None]).squeeze(2)  # (B, S)
    return -(picked * mask).sum() / mask.sum()


def token_of_frame(durations: Tensor, frames: int) -> Tensor:
    """Durations (B, T) -> for each of `frames` frames the token that it belongs to, (B, frames) int64.

    Frames past the end point at the last token; a mask hides them. No data-dependent shape.
    """
    ends = durations.cumsum(dim=1)  # (B, T)
    positions = torch.arange(frames, device=durations.device).expand(durations.shape[0], -1)
    return torch.searchsorted(ends, positions.contiguous(), right=True).clamp(max=durations.shape[1] - 1)
