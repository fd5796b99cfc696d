"""The aligner: scores every frame against every token, and from the scores gives soft and hard alignments."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.acoustic.alignment import IMPOSSIBLE, batch_prior, best_path
from model.acoustic.layers import Conv1d, length_mask

TEMPERATURE = 0.02
"""Scale of the squared distances: small, so that training starts from the prior. The published 0.0005 learns five times
slower at equal rate on minutes of speech, measured by the held-out forward-sum loss."""


@dataclass
class Alignment:
    """Which frames belong to which token.

    Attributes:
        log_soft: (B, S, T) log of the soft alignment, each frame a distribution over tokens.
        durations: (B, T) int64 frames per token on the best path.
    """

    log_soft: Tensor
    durations: Tensor


class Aligner(nn.Module):
    """Learned text-to-speech alignment (One TTS Alignment To Rule Them All, arXiv:2108.10447).

    Keys come from the token embeddings, queries from the mel spectrogram; the score is their negative squared distance.
    Dropout on the mel bands keeps it from learning clips by heart: on five minutes of speech it is the difference
    between a held-out forward-sum loss that falls and one that turns at half the way.
    """

    def __init__(self, text_dim: int, mel_dim: int, aligner_dim: int, dropout: float):
        super().__init__()
        self.keys = nn.Sequential(
            Conv1d(text_dim, 2 * text_dim, 3), nn.ReLU(), nn.Dropout(dropout), Conv1d(2 * text_dim, aligner_dim, 1)
        )
        self.queries = nn.Sequential(
            nn.Dropout(dropout),
            Conv1d(mel_dim, 2 * mel_dim, 3),
            nn.ReLU(),
            Conv1d(2 * mel_dim, mel_dim, 1),
            nn.ReLU(),
            Conv1d(mel_dim, aligner_dim, 1),
        )

    def forward(self, text: Tensor, mel: Tensor, token_lengths: Tensor, mel_lengths: Tensor) -> Alignment:
        """text (B, T, D) and normalised mel (B, S, M), zero at padding -> alignment of the batch."""
        with torch.autocast(mel.device.type, enabled=False):
            keys, queries = self.keys(text.float()), self.queries(mel.float())
            distance = (  # (B, S, T), the square multiplied out: no (B, S, T, D) tensor
                queries.square().sum(2, keepdim=True)
                - 2 * queries @ keys.transpose(1, 2)
                + keys.square().sum(2)[:, None, :]
            )
            score = -TEMPERATURE * distance + batch_prior(mel_lengths, token_lengths, mel.shape[1], text.shape[1])
            token_mask = length_mask(token_lengths, text.shape[1])
            log_soft = F.log_softmax(score.masked_fill(~token_mask[:, None, :], IMPOSSIBLE), dim=-1)
            log_soft = log_soft.masked_fill(~token_mask[:, None, :], IMPOSSIBLE)
        return Alignment(log_soft, best_path(log_soft, token_lengths, mel_lengths))
