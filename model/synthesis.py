"""Text to speech with a trained voice: text + speaker (or a reference recording) -> waveform."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from model.acoustic.conditioning import Reference, Style
from model.acoustic.model import ProsodyShift
from model.audio.io import read_recording, resample
from model.audio.mel import MelExtractor, frame_energy
from model.audio.pitch import scale_pitch, track_pitch
from model.audio.reference import check_reference
from model.audio.trimming import trim_and_gain, trim_and_normalize
from model.config.vocoder import VocoderConfig
from model.errors import MyXTTSError
from model.speaker_encoder import SpeakerEncoder, load_speaker_encoder
from model.text.encode import encode
from model.vocoder import build_vocoder
from model.voice import Speaker, Voice, read_voice

log = logging.getLogger(__name__)


class SynthesisError(MyXTTSError):
    """A request that the voice cannot fulfil; the message names what is known."""


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise SynthesisError(f"{name} is {value}, but must lie between {low} and {high}")


@dataclass(frozen=True)
class ProsodyControls:
    """How the melody, level and rhythm of speech are changed.

    Attributes:
        speed: 0.25 to 4; above 1 is faster.
        pitch_scale: 0.5 to 2; factor on the fundamental frequency.
        energy_scale: 0.1 to 10; factor on the amplitude.

    Raises:
        SynthesisError: one of them is out of range.
    """

    speed: float = 1.0
    pitch_scale: float = 1.0
    energy_scale: float = 1.0

    def __post_init__(self) -> None:
        _within("speed", self.speed, 0.25, 4.0)
        _within("pitch_scale", self.pitch_scale, 0.5, 2.0)
        _within("energy_scale", self.energy_scale, 0.1, 10.0)


@dataclass(frozen=True)
class StyleControls:
    """In which style speech is: by default that of the recording that is cloned, or the usual style of the speaker.

    Attributes:
        reference: A recording whose style is taken, whoever speaks in it.
        token_weights: Weights of the style tokens instead, from 0; they are scaled to a sum of 1.
        latent: Values of the latent instead of the reference's, or of those the text lets expect.
        variation: 0 to 2; without a reference, how far the latent strays at random from the expected one.

    Raises:
        SynthesisError: the variation is out of range.
    """

    reference: Path | None = None
    token_weights: Sequence[float] | None = None
    latent: Sequence[float] | None = None
    variation: float = 0.0

    def __post_init__(self) -> None:
        _within("variation", self.variation, 0.0, 2.0)


AS_PREDICTED, USUAL_STYLE = ProsodyControls(), StyleControls()


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
    """A voice with its vocoder, ready to speak.

    Args:
        voice: The voice.
        speaker_encoder: Saved weights of the pretrained speaker encoder, for cloning where there are no others.
    """

    def __init__(self, voice: Voice, speaker_encoder: Path | None = None):
        self.voice = voice
        self._speaker_encoder_weights = speaker_encoder
        self.config = voice.config
        self.vocoder = build_vocoder(VocoderConfig(**voice.config.vocoder), voice.config.audio, voice.vocoder)
        self._speaker_encoder: SpeakerEncoder | None = None
        self._warned: set[str] = set()

    @classmethod
    def load(cls, folder: Path, speaker_encoder: Path | None = None) -> Synthesizer:
        """Open a voice folder; see `model.voice.read_voice` for what is refused."""
        return cls(read_voice(Path(folder)), speaker_encoder)

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
        reference_language: str = "",
        prosody: ProsodyControls = AS_PREDICTED,
        style: StyleControls = USUAL_STYLE,
    ) -> Speech:
        """Speak `text`.

        Args:
            text: Any length above nothing.
            language: One of `languages`; empty means that of the speaker or of the reference, or the first.
            speaker: One of `speakers`; empty means the first that speaks the language. Ignored with a reference.
            reference: A recording whose voice is cloned.
            reference_language: What is spoken in it, where the text is of another language: the voice then keeps its
                sound, as that of a speaker does.
            prosody, style: How.

        Raises:
            SynthesisError: an unknown speaker or language, or a style control of a part that this voice was trained
                without.
            AudioError: a reference cannot be read, or has no voice in it; a poor one is warned about.
            SpeakerEncoderError: the weights of the voice's speaker encoder are missing.
            TextError: nothing to speak in `text`.
        """
        if reference_language and reference is None:
            raise SynthesisError("reference_language is of no recording; give a reference, or leave it out")
        speaker = speaker or self._default_speaker(language or reference_language)
        if speaker not in self.voice.speakers:
            raise SynthesisError(f"unknown speaker {speaker!r}; this voice has: {', '.join(self.speakers)}")
        own = reference_language if reference else self.voice.speaker_languages[speaker]
        language = language or own or self.voice.speaker_languages[speaker]
        number, own_number = self._number(language), self._number(own or language)

        tokens = encode(text, language)
        if tokens.unknown:
            log.warning("not spoken, no symbol for: %s", dict(tokens.unknown))
        known = self.voice.speakers[speaker]
        vector = torch.tensor([known.vector]) if reference is None else self._speaker_of(reference)
        say = partial(
            self.voice.model.synthesize,
            torch.from_numpy(tokens.ids)[None],
            torch.tensor([len(tokens.ids)]),
            vector,
            torch.tensor([number]),
            self._style(known, style, reference),
            None if own_number == number else torch.tensor([own_number]),
        )
        result = say(
            ProsodyShift(
                prosody.speed,
                math.log(prosody.pitch_scale) / known.log_f0_std,
                math.log(prosody.energy_scale) / self.voice.energy_std,
            )
        )
        mel = self.voice.restore_variance(result.mel[0].numpy())
        if prosody.pitch_scale != 1 or prosody.energy_scale != 1:
            plain = self.voice.restore_variance(say(ProsodyShift(prosody.speed)).mel[0].numpy())
            mel, samples = self._made_up_for(mel, plain, prosody.pitch_scale, prosody.energy_scale)
        else:
            samples = self.vocoder(mel)
        return Speech(samples, self.sample_rate, mel, result.durations[0].numpy(), tokens.phones)

    def _made_up_for(
        self, mel: np.ndarray, plain: np.ndarray, pitch_scale: float, energy_scale: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Log-mel and samples as asked for: what the model did of a change, against `plain`, and the rest made up.

        A model of minutes of speech follows pitch and energy only as far as its speakers went; the rest of the energy
        is a gain, the rest of the pitch is scaled on the waveform.
        """
        gained = float(np.mean(frame_energy(mel) - frame_energy(plain)))
        mel = mel + np.float32(math.log(energy_scale) - gained)
        samples = self.vocoder(mel)
        if pitch_scale == 1:
            return mel, samples
        settings = (self.config.audio, self.config.features)
        tracks = [track_pitch(sound, *settings) for sound in (samples, self.vocoder(plain))]
        if not all((track > 0).any() for track in tracks):
            return mel, samples  # nothing is voiced: there is no pitch to scale
        reached, before = (float(np.median(track[track > 0])) for track in tracks)
        return mel, scale_pitch(samples, *settings, pitch_scale * before / reached)

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

    def _number(self, language: str) -> int:
        """Position of a language among those of the voice."""
        if language not in self.languages:
            raise SynthesisError(f"unknown language {language!r}; this voice has: {', '.join(self.languages)}")
        return self.languages.index(language)

    def _speaker_of(self, reference: Path) -> torch.Tensor:
        """(1, V) vector of the pretrained encoder, or (1, E) embedding of the model's own."""
        samples = self._recording(reference)
        if not self.config.model.use_pretrained_speaker_encoder:
            return self.voice.model.conditioning.encode_reference(self._heard(samples)).speaker
        if self._speaker_encoder is None:
            self._speaker_encoder = load_speaker_encoder(self.config.features, self._speaker_encoder_weights)
        return torch.from_numpy(self._speaker_encoder.embed(samples, self.sample_rate))[None]

    def _recording(self, path: Path) -> np.ndarray:
        """(N,) samples of a recording, trimmed and as loud as those that the features were made from."""
        recording = read_recording(path)
        samples = resample(recording.samples, recording.sample_rate, self.sample_rate)
        warnings = check_reference(Path(path), samples, self.config.audio, self.config.features)
        for warning in (*(f"{path}: {note.detail}" for note in recording.notes), *warnings):
            if warning not in self._warned:  # one recording may lend its voice and its style
                self._warned.add(warning)
                log.warning("%s", warning)
        return trim_and_normalize(samples, *trim_and_gain(samples, self.sample_rate, self.config.features))

    def _heard(self, samples: np.ndarray) -> Reference:
        return Reference.from_recordings([MelExtractor(self.config.audio).numpy(samples)])

    def _style(self, speaker: Speaker, controls: StyleControls, cloned: Path | None) -> Style:
        settings = self.config.model
        for name, given, part, key in (
            ("style_weights", controls.token_weights is not None, settings.enable_gst, "enable_gst"),
            ("latent", controls.latent is not None, settings.use_variational_encoder, "use_variational_encoder"),
            ("variation", controls.variation > 0, settings.use_variational_encoder, "use_variational_encoder"),
        ):
            if given and not part:
                raise SynthesisError(f"{name}: this voice was trained without model.{key}")
        style, reference = Style(temperature=controls.variation), controls.reference or cloned
        if reference is not None and settings.has_style:
            heard = self.voice.model.conditioning.encode_reference(self._heard(self._recording(reference)))
            style.token_weights, style.latent = heard.token_weights, heard.latent
        elif settings.enable_gst:
            style.token_weights = torch.tensor([speaker.style])
        if controls.token_weights is not None:
            style.token_weights = self._token_weights(controls.token_weights)
        if controls.latent is not None:
            if len(controls.latent) != settings.vae_latent_dim:
                raise SynthesisError(
                    f"{len(controls.latent)} latent values, but this voice has {settings.vae_latent_dim}"
                )
            style.latent = torch.tensor([list(controls.latent)], dtype=torch.float32)
        return style

    def _token_weights(self, weights: Sequence[float]) -> torch.Tensor:
        heads, tokens = self.config.model.gst_num_heads, self.config.model.gst_num_style_tokens
        row = torch.tensor(list(weights), dtype=torch.float32)
        if len(row) != tokens or bool((row < 0).any()) or not 0 < float(row.sum()) < math.inf:
            raise SynthesisError(
                f"style_weights are {list(weights)}; give {tokens} numbers from 0, not all 0: one for each style token"
            )
        return (row / row.sum()).expand(1, heads, tokens)
