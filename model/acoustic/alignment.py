"""Alignment as a left-to-right hidden Markov model: prior, likelihood, best path, filtering posterior and losses.

All use one emission matrix: log-probabilities of token t at frame s. A path starts at the first token, ends at the
last, and each frame stays at its token or advances by one. Shapes: B batch, S frames, T tokens. Sources: One TTS
Alignment To Rule Them All (arXiv:2108.10447), Glow-TTS (arXiv:2005.11129), Forward Attention (arXiv:1807.06736).
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.acoustic.layers import sequence_mask

IMPOSSIBLE = -1e4
"""Log-probability of impossible events: finite, so that arithmetic on padding produces no NaN."""

WINDOW = 3
"""Tokens that a frame may attend to beyond the likeliest token of the previous frame, under the mask."""


def diagonal_prior(mel_lengths: Tensor, token_lengths: Tensor, frames: int, tokens: int) -> Tensor:
    """Returns the beta-binomial prior of a near-diagonal alignment: (B, S, T) float32, undefined in the padding.

    The token index at frame s of S follows a beta-binomial distribution with n = T - 1, alpha = s + 1, beta = S - s.
    All parameters are integers, so the log-probability is a sum of log-factorials. The two terms that depend on both
    frame and token depend on s + t alone; they are read from Hankel matrices, made as strided views of one table.
    This evaluates frames + tokens gamma functions instead of frames x tokens, and never synchronizes with the device.

    Args:
        mel_lengths, token_lengths: (B,).
        frames, tokens: S and T of the batch.
    """
    size = frames + tokens
    log_factorial = torch.lgamma(torch.arange(1, size + 1, dtype=torch.float64, device=mel_lengths.device))
    ascending = log_factorial.unfold(0, tokens, 1)  # [i, j]: log (i + j)!
    descending = F.pad(log_factorial.flip(0), (0, size)).unfold(0, tokens, 1)  # [i, j]: log (size - 1 - i - j)!
    s, t = (torch.arange(length, device=mel_lengths.device) for length in (frames, tokens))
    last, n = mel_lengths[:, None] - 1, token_lengths[:, None] - 1
    frame_term = log_factorial[s] + log_factorial[(last - s).clamp(min=0)]
    token_term = log_factorial[t] + log_factorial[(n - t).clamp(min=0)]
    clip_term = log_factorial[last + 1] + log_factorial[n] - log_factorial[last + 1 + n]
    joint_term = descending[size - 1 - last - n + s] + ascending[:frames]  # (B, S, T): (last - s + n - t)!, (s + t)!
    return (joint_term + (clip_term - frame_term)[:, :, None] - token_term[:, None, :]).float()


def forward_sum_loss(log_emission: Tensor, token_lengths: Tensor, mel_lengths: Tensor, blank_logprob: float) -> Tensor:
    """Returns the negative log-likelihood per frame of the text given the speech, over all monotonic paths.

    Computed as a connectionist temporal classification (CTC) loss over an added blank column. With `blank_logprob` =
    -1e4 it is exactly the likelihood of the left-to-right HMM; the published -1 lets frames emit the blank, which eases
    early training.

    Args:
        log_emission: (B, S, T) log-probabilities, padded tokens at `IMPOSSIBLE`.
        token_lengths, mel_lengths: (B,).
        blank_logprob: Log-score of the blank, before the softmax.

    Returns:
        Scalar, the mean over clips of -log likelihood / frames. A clip with fewer frames than tokens contributes zero.
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
    """Returns the frames per token on the most probable path (monotonic alignment search).

    Runs compiled on a CPU, and as tensor operations without synchronization on any other device.

    Args:
        log_emission: (B, S, T).
        token_lengths, mel_lengths: (B,).
        advance: (B, S) log-odds of advancing into each frame; None means even odds.

    Returns:
        (B, T) int64 durations: at least 1 for each token, in sum the clip's frames; 0 in the padding.

    Raises:
        ValueError: a clip has fewer frames than tokens, so no path exists (checked on a CPU only; feature extraction
            rejects such clips).
    """
    odds = torch.zeros_like(log_emission[:, :, 0]) if advance is None else advance
    log_emission, odds = log_emission.detach(), odds.detach()
    if log_emission.device.type != "cpu":
        return best_path_on_device(log_emission, token_lengths, mel_lengths, odds)
    if bool((mel_lengths < token_lengths).any()):
        worst = int((mel_lengths - token_lengths).argmin())
        raise ValueError(
            f"clip {worst} of the batch has {int(mel_lengths[worst])} frames for {int(token_lengths[worst])} tokens: "
            "every token takes at least one frame; remove the clip or correct its transcript"
        )
    lengths = (token_lengths.numpy(), mel_lengths.numpy())
    return torch.from_numpy(_viterbi(log_emission.float().numpy(), odds.float().numpy(), *lengths))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _viterbi(
    log_emission: np.ndarray, advance: np.ndarray, token_lengths: np.ndarray, mel_lengths: np.ndarray
) -> np.ndarray:
    batch, most_frames, most_tokens = log_emission.shape
    durations = np.zeros((batch, most_tokens), dtype=np.int64)
    # A leading cell at -inf stands for "no previous token" and keeps the inner loop free of branches.
    scores = np.empty((2, most_tokens + 1), dtype=np.float64)
    advanced = np.empty((most_frames, most_tokens), dtype=np.bool_)
    for b in range(batch):
        tokens, frames = token_lengths[b], mel_lengths[b]
        scores[:] = -np.inf
        scores[0, 1] = log_emission[b, 0, 0]
        for s in range(1, frames):
            previous, current = scores[(s - 1) % 2], scores[s % 2]
            emission, row, odds = log_emission[b, s], advanced[s], advance[b, s]
            for t in range(tokens):
                stay, move = previous[t + 1], previous[t] + odds
                row[t] = move > stay
                current[t + 1] = max(move, stay) + emission[t]
        t = tokens - 1
        for s in range(frames - 1, 0, -1):
            durations[b, t] += 1
            t -= advanced[s, t]
        durations[b, t] += 1
    return durations


def best_path_on_device(log_emission: Tensor, token_lengths: Tensor, mel_lengths: Tensor, advance: Tensor) -> Tensor:
    """Computes `best_path` in tensor operations only, on any device, without device synchronization."""
    batch, frames, tokens = log_emission.shape
    emission = log_emission.double()
    position = torch.arange(tokens, device=emission.device)
    score = torch.where(position == 0, emission[:, 0], -torch.inf)  # (B, T)
    advanced = []
    for s in range(1, frames):
        move = F.pad(score[:, :-1], (1, 0), value=-torch.inf) + advance[:, s, None]
        advanced.append(move > score)
        score = torch.maximum(move, score) + emission[:, s]
    durations = torch.zeros(batch, tokens, dtype=torch.int64, device=emission.device)
    token = (token_lengths - 1)[:, None]
    for s in range(frames - 1, -1, -1):
        inside = (s < mel_lengths)[:, None]
        durations.scatter_add_(1, token, inside.long())
        if s:
            token = token - (advanced[s - 1].gather(1, token) & inside).long()
    return durations


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


def binarization_loss(log_soft: Tensor, durations: Tensor, mel_lengths: Tensor) -> Tensor:
    """Returns the mean over frames of -log of the soft alignment on the hard path; a scalar.

    Minimizing it pulls the soft alignment onto the hard one.
    """
    mask = sequence_mask(mel_lengths, log_soft.shape[1])
    index = token_of_frame(durations, log_soft.shape[1])
    picked = log_soft.gather(2, index[:, :, None]).squeeze(2)  # (B, S)
    return -(picked * mask).sum() / mask.sum()


def guided_attention_loss(log_soft: Tensor, token_lengths: Tensor, mel_lengths: Tensor, sigma: float) -> Tensor:
    """Returns the guided attention loss (arXiv:1710.08969), 0 to 1: the mean penalty of off-diagonal attention.

    The penalty of (frame s, token t) is 1 - exp(-(s / S - t / T)^2 / (2 sigma^2)): 0 on the diagonal.
    """
    frames, tokens = (torch.arange(size, device=log_soft.device) for size in log_soft.shape[1:])
    distance = frames[None, :, None] / mel_lengths[:, None, None] - tokens / token_lengths[:, None, None]
    weight = 1 - torch.exp(-distance.square() / (2 * sigma**2))  # (B, S, T)
    mask = sequence_mask(mel_lengths, log_soft.shape[1])[:, :, None]
    return (log_soft.exp() * weight * mask).sum() / mask.sum()


def token_of_frame(durations: Tensor, frames: int) -> Tensor:
    """Returns the token index of each frame, (B, frames) int64, from durations (B, T).

    Frames past the end have the index of the last token. The shape does not depend on the data.
    """
    ends = durations.cumsum(dim=1)  # (B, T)
    positions = torch.arange(frames, device=durations.device).expand(durations.shape[0], -1)
    return torch.searchsorted(ends, positions.contiguous(), right=True).clamp(max=durations.shape[1] - 1)


def masked_log_softmax(scores: Tensor, token_mask: Tensor) -> Tensor:
    """Normalizes scores (B, S, T) to log-probabilities over the tokens (B, T) of each frame; padding `IMPOSSIBLE`."""
    padding = ~token_mask[:, None, :]
    return F.log_softmax(scores.masked_fill(padding, IMPOSSIBLE), dim=-1).masked_fill(padding, IMPOSSIBLE)
