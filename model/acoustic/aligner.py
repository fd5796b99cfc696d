"""The aligner: scores every frame against every token and derives soft and hard alignments from the scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.acoustic.alignment import WINDOW, best_path, diagonal_prior, forward_attention, masked_log_softmax
from model.acoustic.layers import Dropout, LinearConv1d, sequence_mask
from model.config.acoustic import ModelConfig

TEMPERATURE = 0.02
"""Scale of the squared distances, small so that training starts from the prior. On minutes of speech the published
0.0005 learns five times slower at the same learning rate, measured by the held-out forward-sum loss."""
LOCATION_FILTERS, LOCATION_KERNEL = 8, 31


@dataclass(kw_only=True)
class Alignment:
    """The alignment of frames to tokens.

    Attributes:
        log_emission: (B, S, T) log-probability of each token at each frame: the emissions of the hidden Markov model.
        log_soft: (B, S, T) log of the soft alignment, a distribution over tokens for each frame. Equal to the
            emissions, or to their forward-attention posterior.
        durations: (B, T) int64 frames per token on the best path.
    """

    log_emission: Tensor
    log_soft: Tensor
    durations: Tensor


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


class Aligner(nn.Module):
    """Learned text-to-speech alignment (One TTS Alignment To Rule Them All, arXiv:2108.10447).

    Keys come from the token embeddings, queries from the mel spectrogram; the score is their negative squared distance.
    Dropout on the mel bins prevents overfitting: on five minutes of speech the held-out forward-sum loss falls with it,
    and rises from the middle of training without it. Each clip's mean spectrum is subtracted first (cepstral mean
    normalization), which makes the same sound more alike across speakers and microphones.
    """

    def __init__(self, mel_dim: int, config: ModelConfig):
        super().__init__()
        self.config = config
        text_dim, width, dropout = config.hidden_dim, config.aligner_dim, config.aligner_dropout
        self.keys = nn.Sequential(
            LinearConv1d(text_dim, 2 * text_dim, 3), nn.ReLU(), Dropout(dropout), LinearConv1d(2 * text_dim, width, 1)
        )
        self.queries = nn.Sequential(
            Dropout(dropout),
            LinearConv1d(mel_dim, 2 * mel_dim, 3),
            nn.ReLU(),
            LinearConv1d(2 * mel_dim, mel_dim, 1),
            nn.ReLU(),
            LinearConv1d(mel_dim, width, 1),
        )
        if config.use_location_attention:
            self.location = LocationTerm()
        if config.use_forward_attention:
            self.advance = nn.Linear(width, 1)  # the transition agent
            nn.init.zeros_(self.advance.bias)

    def forward(self, text: Tensor, mel: Tensor, token_lengths: Tensor, mel_lengths: Tensor) -> Alignment:
        """Aligns token embeddings (B, T, D) with a normalized mel (B, S, M) that is zero in the padding."""
        with torch.autocast(mel.device.type, enabled=False):
            keys, queries = self.keys(text.float()), self.queries(_subtract_mean(mel.float(), mel_lengths))
            distance = (  # (B, S, T), the square expanded to avoid a (B, S, T, D) tensor
                queries.square().sum(2, keepdim=True)
                - 2 * queries @ keys.transpose(1, 2)
                + keys.square().sum(2)[:, None, :]
            )
            score = -TEMPERATURE * distance + diagonal_prior(mel_lengths, token_lengths, mel.shape[1], text.shape[1])
            token_mask = sequence_mask(token_lengths, text.shape[1])
            if self.config.use_location_attention:
                iterations = self.config.location_iterations * (1 if self.training else 2)
                log_emission = self.location.refine(score, token_mask, iterations)
            else:
                log_emission = masked_log_softmax(score, token_mask)
            log_soft, advance = log_emission, None
            if self.config.use_forward_attention:
                advance = self.advance(queries).squeeze(2)  # (B, S)
                masked = self.config.forward_attention_mask and not self.training
                log_soft = forward_attention(log_emission, advance, WINDOW if masked else None)
        durations = best_path(log_emission, token_lengths, mel_lengths, advance)
        return Alignment(log_emission=log_emission, log_soft=log_soft, durations=durations)


def _subtract_mean(mel: Tensor, lengths: Tensor) -> Tensor:
    """Subtracts from a mel (B, S, M), zero in the padding, each clip's mean over its own frames."""
    mean = mel.sum(1, keepdim=True) / lengths[:, None, None]
    return (mel - mean) * sequence_mask(lengths, mel.shape[1])[:, :, None]
