"""The acoustic model: text, speaker and language to a mel spectrogram, in one parallel pass.

A text encoder, a learned aligner (training only), predictors of duration, pitch and energy, a length regulator and a
mel decoder, conditioned on speaker, language and style, after FastSpeech 2 (arXiv:2006.04558) and FastPitch
(arXiv:2006.06873). Shapes: B batch, T tokens, S frames, M mel bins, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.acoustic.aligner import Aligner, Alignment
from model.acoustic.alignment import token_of_frame
from model.acoustic.batch import Batch
from model.acoustic.conditioning import Conditioning, Conditions, Reference, Style
from model.acoustic.layers import Dropout, LinearConv1d, Transformer, apply_mask, padding_mask, sequence_mask
from model.acoustic.predictors import DurationPredictor, ProsodyPredictor, average_over_tokens
from model.config.acoustic import ModelConfig

LONGEST_TOKEN = 200
"""Upper bound of predicted durations in frames (2.3 s): longer ones are errors, not pauses."""


@dataclass(kw_only=True)
class Prosody:
    """Prosody per token, predicted or target.

    Attributes:
        log_durations: (B, T) log(1 + frames).
        pitch, energy: (B, T), standardized.
    """

    log_durations: Tensor
    pitch: Tensor
    energy: Tensor


@dataclass(frozen=True)
class ProsodyShift:
    """Change of the predicted prosody.

    Attributes:
        speed: Divides every duration; above 1 is faster.
        pitch, energy: Added to the predicted values, in standard deviations; scalar or (B, 1).
    """

    speed: float = 1.0
    pitch: Tensor | float = 0.0
    energy: Tensor | float = 0.0


AS_PREDICTED = ProsodyShift()


@dataclass(kw_only=True)
class ModelOutput:
    """Output of a teacher-forced pass.

    Attributes:
        mel: (B, S, M) log-mel.
        alignment: None if the batch has durations.
        predicted, target: Predicted prosody and its target.
        conditions: Conditions of the pass.
        embed_synthesis: Function from (mel, lengths) to speaker embeddings (B, E) by the model's own speaker encoder,
            for the speaker consistency loss; None without that encoder or that loss.
    """

    mel: Tensor
    alignment: Alignment | None
    predicted: Prosody
    target: Prosody
    conditions: Conditions
    embed_synthesis: Callable[[Tensor, Tensor], Tensor] | None = None


@dataclass(kw_only=True)
class Synthesis:
    """Output of a free-running pass.

    Attributes:
        mel: (B, S, M) log-mel.
        mel_lengths: (B,) frames.
        durations: (B, T) int64 frames per token.
        prosody: The prosody used, `ProsodyShift` included.
    """

    mel: Tensor
    mel_lengths: Tensor
    durations: Tensor
    prosody: Prosody


@dataclass(frozen=True, kw_only=True)
class ModelDimensions:
    """Dimensions and statistics of the data that the model is built with.

    Attributes:
        num_symbols, num_stresses: Size of the symbol table and number of stress levels.
        num_languages: Languages of the corpus.
        speaker_vector_dim: Width of the pretrained speaker vectors.
        n_mels: Mel bins.
        mel_mean, mel_std: Mean and standard deviation of log-mel values, for normalization.
    """

    num_symbols: int
    num_stresses: int
    num_languages: int
    speaker_vector_dim: int
    n_mels: int
    mel_mean: float
    mel_std: float


class AcousticModel(nn.Module):
    """Non-autoregressive text-to-mel model; the components are listed at the top of this module."""

    def __init__(self, config: ModelConfig, dimensions: ModelDimensions):
        super().__init__()
        self.config, self.dimensions = config, dimensions
        dim = config.hidden_dim
        self.symbol_embedding = nn.Embedding(dimensions.num_symbols, dim, padding_idx=0)
        self.stress_embedding = nn.Embedding(dimensions.num_stresses, dim)
        for embedding in (self.symbol_embedding, self.stress_embedding):
            nn.init.normal_(embedding.weight, std=dim**-0.5)
        self.conditioning = Conditioning(
            config,
            speaker_vector_dim=dimensions.speaker_vector_dim,
            num_languages=dimensions.num_languages,
            n_mels=dimensions.n_mels,
            mel_mean=dimensions.mel_mean,
            mel_std=dimensions.mel_std,
        )
        self.encoder = _transformer(config, config.encoder_layers)
        self.decoder = _transformer(config, config.decoder_layers)
        self.aligner = Aligner(dimensions.n_mels, config)
        self.predictor_condition = nn.Linear(dim, dim) if config.predictors_read == "embedding" else None
        self.predictor_input_dropout = Dropout(config.predictor_input_dropout)
        self.duration_predictor = DurationPredictor(
            inputs=dim,
            dim=config.duration_predictor_hidden_dim,
            layers=config.duration_predictor_layers,
            dropout=config.predictor_dropout,
        )
        if config.enable_prosody_prediction:
            self.pitch_predictor = ProsodyPredictor(dim, config.prosody_predictor_hidden_dim, config.predictor_dropout)
            self.energy_predictor = ProsodyPredictor(dim, config.prosody_predictor_hidden_dim, config.predictor_dropout)
            self.pitch_embedding = LinearConv1d(1, dim, 3)
            self.energy_embedding = LinearConv1d(1, dim, 3)
        self.position_in_token = nn.Linear(3, dim)
        self.frame_merge = nn.Linear(config.frames_per_step * dim, dim)
        self.mel_head = nn.Linear(dim, config.frames_per_step * dimensions.n_mels)

    def forward(self, batch: Batch) -> ModelOutput:
        """Predicts mels with teacher forcing: durations of aligner or batch, pitch and energy of the recording."""
        mask = sequence_mask(batch.token_lengths, batch.ids.shape[1])
        mel_mask = sequence_mask(batch.mel_lengths, batch.mel.shape[1])
        embedded = self._embed(batch.ids, mask)
        reference = Reference(batch.reference_mel, batch.reference_lengths)
        speaker = self.conditioning.embed_speaker(batch.speaker_vector, reference)
        conditions = self._condition(embedded, batch.token_lengths, speaker, batch.language, Style(reference))
        encoded = self.encoder(embedded, mask, conditions.vector)
        alignment, durations = None, batch.durations
        if durations is None:
            normalized = self._normalize(batch.mel) * mel_mask[:, :, None]
            alignment = self.aligner(embedded, normalized, batch.token_lengths, batch.mel_lengths)
            durations = alignment.durations
        target = Prosody(
            log_durations=durations.float().log1p(),
            pitch=average_over_tokens(batch.pitch, durations, batch.voiced & mel_mask),
            energy=average_over_tokens(batch.energy, durations, mel_mask),
        )
        predicted = self._predict_prosody(encoded, embedded, mask, conditions.vector, batch.token_lengths)
        frames = batch.mel.shape[1]
        mel = self._decode(self._add_prosody(encoded, target, mask), durations, frames, mel_mask, conditions.vector)
        own_consistency = self.config.use_speaker_consistency_loss and not self.config.use_pretrained_speaker_encoder
        return ModelOutput(
            mel=mel,
            alignment=alignment,
            predicted=predicted,
            target=target,
            conditions=conditions,
            embed_synthesis=self.conditioning.embed_synthesis if own_consistency else None,
        )

    @torch.inference_mode()
    def synthesize(
        self,
        ids: Tensor,
        token_lengths: Tensor,
        speaker_vector: Tensor,
        language: Tensor,
        style: Style | None = None,
        speaker_language: Tensor | None = None,
        shift: ProsodyShift = AS_PREDICTED,
    ) -> Synthesis:
        """Predicts prosody and mel from text, speaker, language and style (free-running).

        Args:
            ids: (B, T, 2) symbol and stress.
            token_lengths: (B,).
            speaker_vector: (B, V) unit vectors from the pretrained encoder; for a model with its own speaker encoder,
                (B, E) embeddings from `Conditioning.embed_speaker`.
            language: (B,) language of the text.
            style: Required by a model with style tokens.
            speaker_language: (B,) language of the speakers if it is not that of the text. It conditions the decoder,
                which keeps the voice, while encoder and predictors take the language of the text.
            shift: Change of the predicted prosody.

        Raises:
            StyleError: the style or the speaker does not fit the model.
        """
        mask = padding_mask(token_lengths, ids.shape[1])
        embedded = self._embed(ids, mask)
        speaker = self.conditioning.embed_speaker(speaker_vector, None)
        condition = self._condition(embedded, token_lengths, speaker, language, style or Style()).vector
        encoded = self.encoder(embedded, mask, condition)
        padded_lengths = None if mask is None else token_lengths
        predicted = self._predict_prosody(encoded, embedded, mask, condition, padded_lengths)
        frames = (predicted.log_durations.expm1() / shift.speed).round().clamp(1, LONGEST_TOKEN).long()
        durations = apply_mask(frames, mask)
        used = Prosody(
            log_durations=durations.float().log1p(),
            pitch=predicted.pitch + shift.pitch,
            energy=predicted.energy + shift.energy,
        )
        mel_lengths = durations.sum(1)
        longest = int(mel_lengths.max())
        mel_mask = padding_mask(mel_lengths, longest)
        if speaker_language is not None:
            condition = self.conditioning.replace_language(condition, language, speaker_language)
        mel = self._decode(self._add_prosody(encoded, used, mask), durations, longest, mel_mask, condition)
        return Synthesis(mel=mel, mel_lengths=mel_lengths, durations=durations, prosody=used)

    @torch.no_grad()
    def synthesize_batch(self, batch: Batch) -> Synthesis:
        """Calls `synthesize` on the texts of a batch, with the speakers and styles of its reference clips."""
        reference = Reference(batch.reference_mel, batch.reference_lengths)
        vector = batch.speaker_vector
        if not self.config.use_pretrained_speaker_encoder:
            vector = self.conditioning.embed_speaker(vector, reference)
        return self.synthesize(batch.ids, batch.token_lengths, vector, batch.language, Style(reference))

    def align(self, ids: Tensor, token_lengths: Tensor, mel: Tensor, mel_lengths: Tensor) -> Alignment:
        """Aligns recordings (B, S, M) with their texts (B, T, 2)."""
        mask = sequence_mask(token_lengths, ids.shape[1])
        mel_mask = sequence_mask(mel_lengths, mel.shape[1])
        normalized = self._normalize(mel) * mel_mask[:, :, None]
        return self.aligner(self._embed(ids, mask), normalized, token_lengths, mel_lengths)

    def _normalize(self, mel: Tensor) -> Tensor:
        return (mel - self.dimensions.mel_mean) / self.dimensions.mel_std

    def _embed(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        return apply_mask(self.symbol_embedding(ids[..., 0]) + self.stress_embedding(ids[..., 1]), mask)

    def _condition(
        self, embedded: Tensor, token_lengths: Tensor, speaker: Tensor, language: Tensor, style: Style
    ) -> Conditions:
        mean_token = embedded.sum(1) / token_lengths[:, None]
        return self.conditioning(mean_token, speaker, language, style)

    def _predict_prosody(
        self,
        encoded: Tensor,
        embedded: Tensor,
        mask: Tensor | None,
        condition: Tensor,
        token_lengths: Tensor | None,
    ) -> Prosody:
        source = encoded if self.predictor_condition is None else embedded
        # Detached, as in Glow-TTS: hard durations are noisy targets early in training and would disturb the encoder.
        inputs = self._predictor_input(source.detach(), mask, condition.detach())
        log_durations = self.duration_predictor(inputs, token_lengths)
        if not self.config.enable_prosody_prediction:
            zeros = torch.zeros_like(log_durations)
            return Prosody(log_durations=log_durations, pitch=zeros, energy=zeros)
        inputs = self._predictor_input(source, mask, condition)
        return Prosody(
            log_durations=log_durations,
            pitch=self.pitch_predictor(inputs, mask),
            energy=self.energy_predictor(inputs, mask),
        )

    def _predictor_input(self, source: Tensor, mask: Tensor | None, condition: Tensor) -> Tensor:
        """Adds the condition to embeddings (the encoding has it already) and applies dropout; (B, T, D)."""
        if self.predictor_condition is not None:
            source = apply_mask(source + self.predictor_condition(condition)[:, None, :], mask)
        return self.predictor_input_dropout(source)

    def _add_prosody(self, encoded: Tensor, prosody: Prosody, mask: Tensor | None) -> Tensor:
        if not self.config.enable_prosody_prediction:
            return encoded
        pitch = self.pitch_embedding(apply_mask(prosody.pitch, mask)[:, :, None].to(encoded.dtype))
        energy = self.energy_embedding(apply_mask(prosody.energy, mask)[:, :, None].to(encoded.dtype))
        return apply_mask(encoded + pitch + energy, mask)

    def _decode(
        self, encoded: Tensor, durations: Tensor, frames: int, mel_mask: Tensor | None, condition: Tensor
    ) -> Tensor:
        """Expands encoded tokens (B, T, D) by their durations (B, T) to `frames` and decodes them to a log-mel."""
        step = self.config.frames_per_step
        index = token_of_frame(durations, frames)  # (B, S)
        x = encoded.gather(1, index[:, :, None].expand(-1, -1, encoded.shape[2]))
        x = apply_mask(x + self.position_in_token(position_features(durations, index)), mel_mask)
        x = nn.functional.pad(x, (0, 0, 0, -frames % step))  # a whole number of decoder steps
        x = self.frame_merge(x.unflatten(1, (-1, step)).flatten(2))  # (B, S / step, D)
        step_mask = None
        if mel_mask is not None:
            step_mask = nn.functional.pad(mel_mask, (0, -frames % step)).unflatten(1, (-1, step)).any(2)
        x = self.decoder(apply_mask(x, step_mask), step_mask, condition)
        mel = self.mel_head(x).unflatten(2, (step, -1)).flatten(1, 2)[:, :frames]  # (B, S, M)
        return apply_mask(mel.float() * self.dimensions.mel_std + self.dimensions.mel_mean, mel_mask)


def _transformer(config: ModelConfig, layers: int) -> Transformer:
    return Transformer(
        layers=layers,
        dim=config.hidden_dim,
        num_heads=config.num_heads,
        ffn_dim=config.ffn_dim,
        kernel_size=config.kernel_size,
        dropout=config.dropout,
        condition_dim=config.hidden_dim,
    )


def position_features(durations: Tensor, index: Tensor) -> Tensor:
    """Returns the position of each frame in its token: relative, and log frames from start and to end; (B, S, 3).

    The decoder input repeats a token's vector, so these features are all that distinguishes its frames.

    Args:
        durations: (B, T) int64 frames per token.
        index: (B, S) int64 token of each frame.
    """
    ends = durations.cumsum(1).gather(1, index)  # (B, S)
    length = durations.gather(1, index).clamp(min=1)
    position = torch.arange(index.shape[1], device=index.device)[None, :]
    since_start = (position - (ends - length)).clamp(min=0).float()
    to_end = (ends - 1 - position).clamp(min=0).float()
    return torch.stack(((since_start + 0.5) / length, since_start.log1p(), to_end.log1p()), dim=2)
