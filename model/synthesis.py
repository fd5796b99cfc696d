"""Text to speech with a trained voice: text + speaker (or a reference recording) -> waveform."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from model.audio.io import read_audio
from model.speaker_encoder import SAMPLE_RATE as SPEAKER_SAMPLE_RATE
from model.speaker_encoder import SpeakerEncoder
from model.text import encode
from model.vocoder import build_vocoder
from model.voice import Voice, read_voice

log = logging.getLogger(__name__)


class SynthesisError(ValueError):
    """A request that the voice cannot fulfil; the message names what is known."""


@dataclass
class Speech:
    """Synthesised speech.

    Attributes:
        samples: (N,) float32 in [-1, 1].
        sample_rate: Hz.
        mel: (S, M) log-mel that the vocoder was given.
        durations: (T,) frames per token.
        phones: (T,) names of the tokens.
    """

    samples: np.ndarray
    sample_rate: int
    mel: np.ndarray
    durations: np.ndarray
    phones: list[str]


class Synthesizer:
    """A voice with its vocoder, ready to speak."""

    def __init__(self, voice: Voice):
        self.voice = voice
        self.config = voice.config
        self.vocoder = build_vocoder(voice.config.vocoder, voice.config.audio)
        self._speaker_encoder: SpeakerEncoder | None = None

    @classmethod
    def load(cls, folder: Path) -> Synthesizer:
        """Open a voice folder; see `model.voice.read_voice` for what is refused."""
        return cls(read_voice(Path(folder)))

    @property
    def speakers(self) -> list[str]:
        return list(self.voice.speakers)

    @property
    def languages(self) -> list[str]:
        return self.voice.languages

    @property
    def sample_rate(self) -> int:
        return self.config.audio.sample_rate

    def synthesize(
        self,
        text: str,
        language: str = "",
        speaker: str = "",
        reference: Path | None = None,
        speed: float = 1.0,
        pitch_scale: float = 1.0,
        energy_scale: float = 1.0,
    ) -> Speech:
        """Speak `text`.

        Args:
            text: Any length above nothing.
            language: One of `languages`; empty means the speaker's own, or the first.
            speaker: One of `speakers`; empty means the first that speaks the language. Ignored with a reference.
            reference: A recording whose voice is cloned.
            speed: 0.25 to 4; above 1 is faster.
            pitch_scale: 0.5 to 2; factor on the fundamental frequency.
            energy_scale: 0.1 to 10; factor on the amplitude.

        Raises:
            SynthesisError: an unknown speaker or language, or a control out of range.
            TextError: nothing to speak in `text`.
        """
        for name, value, low, high in (
            ("speed", speed, 0.25, 4.0),
            ("pitch_scale", pitch_scale, 0.5, 2.0),
            ("energy_scale", energy_scale, 0.1, 10.0),
        ):
            if not low <= value <= high:
                raise SynthesisError(f"{name} is {value}, but must lie between {low} and {high}")
        speaker = speaker or self._default_speaker(language)
        if speaker not in self.voice.speakers:
            raise SynthesisError(f"unknown speaker {speaker!r}; this voice has: {', '.join(self.speakers)}")
        language = language or self.voice.speaker_languages[speaker]
        if language not in self.languages:
            raise SynthesisError(f"unknown language {language!r}; this voice has: {', '.join(self.languages)}")

        tokens = encode(text, language)
        if tokens.unknown:
            log.warning("not spoken, no symbol for: %s", dict(tokens.unknown))
        known = self.voice.speakers[speaker]
        vector = torch.tensor(known.vector) if reference is None else self._embed(reference)
        result = self.voice.model.synthesize(
            torch.from_numpy(tokens.ids)[None],
            torch.tensor([len(tokens.ids)]),
            vector[None],
            torch.tensor([self.languages.index(language)]),
            speed=speed,
            pitch_shift=math.log(pitch_scale) / known.log_f0_std,
            energy_shift=math.log(energy_scale) / self.voice.energy_std,
        )
        mel = result.mel[0].numpy()
        return Speech(self.vocoder(mel), self.sample_rate, mel, result.durations[0].numpy(), tokens.phones)

    @torch.no_grad()
    def align(self, ids: np.ndarray, mel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Align recorded speech: ids (T, 2), log-mel (S, M) -> durations (T,) frames, soft alignment (S, T)."""
        alignment = self.voice.model.align(
            torch.from_numpy(np.asarray(ids, dtype=np.int64))[None],
            torch.tensor([len(ids)]),
            torch.tensor(np.asarray(mel, dtype=np.float32))[None],
            torch.tensor([len(mel)]),
        )
        return alignment.durations[0].numpy(), alignment.log_soft[0].exp().numpy()

    def _default_speaker(self, language: str) -> str:
        speaking = [name for name, own in self.voice.speaker_languages.items() if language in ("", own)]
        return speaking[0] if speaking else self.speakers[0]

    def _embed(self, reference: Path) -> torch.Tensor:
        if self._speaker_encoder is None:
            self._speaker_encoder = SpeakerEncoder.load()
        return torch.from_numpy(self._speaker_encoder.embed(read_audio(reference, SPEAKER_SAMPLE_RATE)))
