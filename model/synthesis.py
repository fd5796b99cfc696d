"""Text to speech with a trained voice: text and a speaker, or a reference recording, to a waveform.

Load a voice, synthesize, clone and save::

    from model.synthesis import Synthesizer

    voice = Synthesizer("voice")
    voice.synthesize("Good morning.").save("morning.wav")
    voice.synthesize("Good morning.", reference="me.wav").save("cloned.wav")
    for samples in voice.stream("A text of any length. Playback starts with its first sentence."):
        play(samples)
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from model.acoustic.conditioning import Reference, Style
from model.acoustic.model import AS_PREDICTED, ProsodyShift
from model.audio.frame_matching import FrameMatcher
from model.audio.io import read_recording, resample, write_audio
from model.audio.mel import MelExtractor, average_spectrum, frame_energy
from model.audio.pitch import scale_pitch, track_pitch
from model.audio.reference import check_reference
from model.audio.trimming import trim_and_gain, trim_and_normalize
from model.config.vocoder import VocoderConfig
from model.corpus.sentences import shipped_languages, shipped_list
from model.errors import MyXTTSError, TextError
from model.speaker_encoder import SpeakerEncoder, load_speaker_encoder
from model.text.encode import TokenSequence, encode
from model.text.sentences import LONGEST_PIECE, join_sentences, split_sentences
from model.vocoder import build_vocoder
from model.voice import Speaker, read_voice

log = logging.getLogger(__name__)


class SynthesisError(MyXTTSError):
    """The voice cannot fulfill a request; the message names what it can do."""


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise SynthesisError(f"{name} is {value}, but must lie between {low} and {high}")


@dataclass(frozen=True, kw_only=True)
class ProsodyControls:
    """Changes of speed, pitch and level.

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
        _check_range("speed", self.speed, 0.25, 4.0)
        _check_range("pitch_scale", self.pitch_scale, 0.5, 2.0)
        _check_range("energy_scale", self.energy_scale, 0.1, 10.0)


@dataclass(frozen=True, kw_only=True)
class StyleControls:
    """Speaking style; by default that of the reference recording, or the mean style of the speaker.

    Attributes:
        reference: Recording of any speaker whose style is used.
        token_weights: Weights of the style tokens, at least 0; they are normalized to a sum of 1.
        latent: Latent vector that replaces the one of the reference or of the prior.
        variation: 0 to 2; standard deviation of the latent around the mean of the prior, without a reference.

    Raises:
        SynthesisError: the variation is out of range.
    """

    reference: Path | str | None = None
    token_weights: Sequence[float] | None = None
    latent: Sequence[float] | None = None
    variation: float = 0.0

    def __post_init__(self) -> None:
        _check_range("variation", self.variation, 0.0, 2.0)


FIRST_CHUNK_FRAMES = 24
"""Mel frames of the first chunk of a stream, a quarter of a second, so that playback starts early."""
CALIBRATION_SENTENCES = 5
"""Sentences that the spectrum of a clone is measured on."""
KNOWN_SPEAKER, UNKNOWN_SPEAKER = 0.5, 0.75
"""Root mean square, over the mel bands, of the difference between the long-term average spectra of a reference and its
clone: up to the first it is not corrected, from the second on all of it is. A speaker that the voice was trained on
differs too, since some seconds of speech depend on what is said (docs/measurements/base_voices.md)."""
DEFAULT_SIMILARITY = 0.7
"""Default of `similarity` for speakers that the voice was not trained on, where all of the spectrum is corrected. More
makes clones more similar and less intelligible (docs/measurements/base_voices.md)."""
UNCHANGED_PROSODY, DEFAULT_STYLE = ProsodyControls(), StyleControls()


@dataclass(kw_only=True)
class Speech:
    """Synthesized speech.

    Attributes:
        samples: (N,) float32 in [-1, 1].
        sample_rate: In Hz.
        mel: Log-mel (S, M), the input of the vocoder.
        durations: Frames per token (T,).
        phones: Names of the T tokens.
    """

    samples: np.ndarray
    sample_rate: int
    mel: np.ndarray
    durations: np.ndarray
    phones: list[str]

    def save(self, path: Path | str) -> Path:
        """Writes a 16-bit WAV or FLAC file, by the suffix of the path, and returns the path.

        Raises:
            AudioError: another suffix, or the file cannot be written.
        """
        return write_audio(path, self.samples, self.sample_rate)


@dataclass(frozen=True, kw_only=True)
class _ReferenceTimbre:
    """Timbre of a reference recording, which the speech of a clone takes on.

    Attributes:
        spectral_correction: (M,) log-mel that is added to every frame.
        spectrum: (M,) long-term average spectrum of the clone, with this correction.
        frames: Frames of the recording.
        similarity: Share of the way that the clone's frames are moved towards those of the recording.
    """

    spectral_correction: np.ndarray
    spectrum: np.ndarray
    frames: FrameMatcher
    similarity: float

    def apply(self, mel: np.ndarray) -> np.ndarray:
        """Returns the log-mel (S, M) of the clone with the timbre of the recording."""
        return self.frames.move(mel + self.spectral_correction, self.spectrum, self.similarity)


@dataclass(frozen=True, kw_only=True)
class _Request:
    """Settings that all pieces of a text share.

    Attributes:
        language: Language of the text.
        speaker: The speaker whose statistics are used.
        vector: (1, V) speaker embedding.
        language_index, own_language_index: (1,) indices of the languages of text and speaker; the latter is None where
            they are the same.
        prosody: Speed, pitch and level.
        style: Speaking style.
        timbre: Timbre of the reference recording; None without one.
    """

    language: str
    speaker: Speaker
    vector: torch.Tensor
    language_index: torch.Tensor
    own_language_index: torch.Tensor | None
    prosody: ProsodyControls
    style: Style
    timbre: _ReferenceTimbre | None = None


def _encoded(pieces: Sequence[str], language: str) -> Iterator[TokenSequence]:
    """Yields the tokens of the pieces of a text, without pieces that have no word.

    Raises:
        TextError: no piece has a word, or the language is unknown.
    """
    spoken = 0
    for index, piece in enumerate(pieces):
        try:
            tokens = encode(piece, language)
        except TextError:
            if not spoken and index == len(pieces) - 1:
                raise
            continue
        if tokens.unknown:
            log.warning("skipped, no symbol for: %s", dict(tokens.unknown))
        spoken += 1
        yield tokens


def _joined(pieces: Sequence[Speech]) -> Speech:
    """Returns consecutive speech as one."""
    if len(pieces) == 1:
        return pieces[0]
    return Speech(
        samples=np.concatenate([piece.samples for piece in pieces]),
        sample_rate=pieces[0].sample_rate,
        mel=np.concatenate([piece.mel for piece in pieces]),
        durations=np.concatenate([piece.durations for piece in pieces]),
        phones=[phone for piece in pieces for phone in piece.phones],
    )


class Synthesizer:
    """A voice with its vocoder.

    Args:
        voice: Folder of an exported voice.
        speaker_encoder: Weights of the pretrained speaker encoder that cloning needs, where the voice was trained with
            one that is not installed as a package.

    Raises:
        VoiceError: the folder holds no trained voice of this version.
        VocoderError: the weights of its vocoder are missing or do not fit.
    """

    def __init__(self, voice: Path | str, speaker_encoder: Path | None = None) -> None:
        self.voice = read_voice(Path(voice))
        self._speaker_encoder_weights = speaker_encoder
        self.config = self.voice.config
        # Voices from before this setting existed keep their sound.
        vocoder = VocoderConfig(**{"griffin_lim_start": "random", **self.config.vocoder})
        self.vocoder = build_vocoder(vocoder, self.config.audio, self.voice.vocoder)
        self._speaker_encoder: SpeakerEncoder | None = None
        self._warned: set[str] = set()

    @property
    def speakers(self) -> list[str]:
        return list(self.voice.speakers)

    @property
    def languages(self) -> list[str]:
        return self.voice.languages

    @property
    def training_sentences(self) -> frozenset[str] | None:
        """Hashes of the sentences that the voice was trained on (`model.text`); None if unknown."""
        return self.voice.training_sentences

    @property
    def sample_rate(self) -> int:
        return self.config.audio.sample_rate

    def synthesize(
        self,
        text: str,
        language: str = "",
        speaker: str = "",
        *,
        reference: Path | str | None = None,
        reference_language: str = "",
        similarity: float | None = None,
        prosody: ProsodyControls = UNCHANGED_PROSODY,
        style: StyleControls = DEFAULT_STYLE,
    ) -> Speech:
        """Synthesizes a text.

        Args:
            text: Text of any length; more than `LONGEST_PIECE` characters are spoken in several pieces, each of whole
                sentences, so that time grows with the length of the text and memory with the samples alone.
            language: One of `languages`; by default the language of the speaker or of the reference.
            speaker: One of `speakers`; by default the first one of the language. Ignored where there is a reference.
            reference: Recording of the voice to clone.
            reference_language: Language of the reference where the text is in another one; the cloned voice then keeps
                its timbre.
            similarity: 0 to 1; how far the timbre of the clone is moved towards that of the reference, beyond what the
                model makes of it; more is less intelligible. By default `DEFAULT_SIMILARITY`, and less down to 0 the
                better the voice knows the speaker.
            prosody: Speed, pitch and level.
            style: Speaking style.

        Raises:
            SynthesisError: the speaker or language is unknown, an argument that is about the reference is given without
                one, the similarity is out of range, or a style control needs a part that the model lacks.
            AudioError: a reference cannot be read or holds no voice; a poor one is logged as a warning.
            SpeakerEncoderError: the weights of the voice's speaker encoder are missing.
            TextError: the text has nothing to speak.
        """
        pieces = [text] if len(text) <= LONGEST_PIECE else list(join_sentences(split_sentences(text) or [text]))
        request = self._request(pieces, language, speaker, reference, reference_language, similarity, prosody, style)
        return _joined([self._speech(tokens, request) for tokens in _encoded(pieces, request.language)])

    def stream(
        self,
        text: str,
        language: str = "",
        speaker: str = "",
        *,
        reference: Path | str | None = None,
        reference_language: str = "",
        similarity: float | None = None,
        prosody: ProsodyControls = UNCHANGED_PROSODY,
        style: StyleControls = DEFAULT_STYLE,
    ) -> Iterator[np.ndarray]:
        """Yields the samples of a text, float32 in [-1, 1], as soon as they are generated.

        The text is spoken sentence by sentence, and the vocoder generates each in chunks, the first of them short. A
        changed pitch is completed on whole sentences, so they are then yielded as a whole; Griffin-Lim from random
        phases generates whole sentences, too.

        Args and errors are those of `synthesize`; errors of the arguments are raised before the first chunk.
        """
        sentences = split_sentences(text) or [text]
        request = self._request(sentences, language, speaker, reference, reference_language, similarity, prosody, style)
        return self._stream(_encoded(sentences, request.language), request)

    def _stream(self, sentences: Iterator[TokenSequence], request: _Request) -> Iterator[np.ndarray]:
        changed = request.prosody.pitch_scale != 1 or request.prosody.energy_scale != 1
        for tokens in sentences:
            if changed:
                yield self._speech(tokens, request).samples
            else:
                mel, _ = self._predict(tokens, request, ProsodyShift(speed=request.prosody.speed))
                yield from self.vocoder.stream(mel, FIRST_CHUNK_FRAMES)

    def _request(
        self,
        pieces: Sequence[str],
        language: str,
        speaker: str,
        reference: Path | str | None,
        reference_language: str,
        similarity: float | None,
        prosody: ProsodyControls,
        style: StyleControls,
    ) -> _Request:
        """Resolves the arguments of `synthesize` to the inputs that all pieces of a text share."""
        if reference_language and reference is None:
            raise SynthesisError("reference_language requires reference; give a reference, or leave it out")
        if similarity is not None:
            if reference is None:
                raise SynthesisError("similarity requires reference; give a reference, or leave it out")
            _check_range("similarity", similarity, 0.0, 1.0)
        speaker = speaker or self._default_speaker(language or reference_language)
        if speaker not in self.voice.speakers:
            raise SynthesisError(f"unknown speaker {speaker!r}; this voice has: {', '.join(self.speakers)}")
        own = reference_language if reference else self.voice.speaker_languages[speaker]
        language = language or own or self.voice.speaker_languages[speaker]
        index, own_index = self._language_index(language), self._language_index(own or language)
        known = self.voice.speakers[speaker]
        samples = None if reference is None else self._read_reference(Path(reference))
        request = _Request(
            language=language,
            speaker=known,
            vector=torch.tensor([known.vector]) if samples is None else self._embed_speaker(samples),
            language_index=torch.tensor([index]),
            own_language_index=None if own_index == index else torch.tensor([own_index]),
            prosody=prosody,
            style=self._style(known, style, reference),
        )
        if samples is None:
            return request
        return replace(request, timbre=self._reference_timbre(samples, pieces, request, similarity))

    def _speech(self, tokens: TokenSequence, request: _Request) -> Speech:
        """Synthesizes a piece of a text."""
        prosody = request.prosody
        shift = ProsodyShift(
            speed=prosody.speed,
            pitch=math.log(prosody.pitch_scale) / request.speaker.log_f0_std,
            energy=math.log(prosody.energy_scale) / self.voice.energy_std,
        )
        mel, durations = self._predict(tokens, request, shift)
        if prosody.pitch_scale != 1 or prosody.energy_scale != 1:
            plain, _ = self._predict(tokens, request, ProsodyShift(speed=prosody.speed))
            mel, samples = self._complete_prosody(mel, plain, prosody.pitch_scale, prosody.energy_scale)
        else:
            samples = self.vocoder(mel)
        return Speech(samples=samples, sample_rate=self.sample_rate, mel=mel, durations=durations, phones=tokens.phones)

    def _predict(self, tokens: TokenSequence, request: _Request, shift: ProsodyShift) -> tuple[np.ndarray, np.ndarray]:
        """Returns the log-mel (S, M) of a piece of a text, and the frames of each token (T,)."""
        result = self.voice.model.synthesize(
            torch.from_numpy(tokens.ids)[None],
            torch.tensor([len(tokens.ids)]),
            request.vector,
            request.language_index,
            request.style,
            request.own_language_index,
            shift,
        )
        mel = self.voice.restore_variance(result.mel[0].numpy())
        if request.timbre is not None:
            mel = request.timbre.apply(mel)
        return mel, result.durations[0].numpy()

    def _complete_prosody(
        self, mel: np.ndarray, plain: np.ndarray, pitch_scale: float, energy_scale: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns log-mel and samples with exactly the requested changes of pitch and energy.

        A model that was trained on minutes of speech follows changes only within the range of its speakers. The
        difference from `plain`, the prediction without changes, measures the achieved change. The missing change of
        energy is applied as a gain, that of pitch by scaling the waveform.
        """
        gained = float(np.mean(frame_energy(mel) - frame_energy(plain)))
        mel = mel + np.float32(math.log(energy_scale) - gained)
        samples = self.vocoder(mel)
        if pitch_scale == 1:
            return mel, samples
        settings = (self.config.audio, self.config.features)
        tracks = [track_pitch(sound, *settings) for sound in (samples, self.vocoder(plain))]
        if not all((track > 0).any() for track in tracks):
            return mel, samples  # no voiced frame, so there is no pitch to scale
        reached, before = (float(np.median(track[track > 0])) for track in tracks)
        return mel, scale_pitch(samples, *settings, pitch_scale * before / reached)

    @torch.no_grad()
    def align(self, ids: np.ndarray, mel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Aligns tokens (T, 2) with a log-mel (S, M); returns frames per token (T,) and the soft alignment (S, T)."""
        alignment = self.voice.model.align(
            torch.from_numpy(np.asarray(ids, dtype=np.int64))[None],
            torch.tensor([len(ids)]),
            torch.tensor(np.asarray(mel, dtype=np.float32))[None],
            torch.tensor([len(mel)]),
        )
        return alignment.durations[0].numpy(), alignment.log_soft[0].exp().numpy()

    def _default_speaker(self, language: str) -> str:
        """Returns the first speaker of a language; of any language where none is given or no speaker has it."""
        speaking = [name for name, own in self.voice.speaker_languages.items() if language in ("", own)]
        return speaking[0] if speaking else self.speakers[0]

    def _language_index(self, language: str) -> int:
        if language not in self.languages:
            raise SynthesisError(f"unknown language {language!r}; this voice has: {', '.join(self.languages)}")
        return self.languages.index(language)

    def _embed_speaker(self, samples: np.ndarray) -> torch.Tensor:
        """Returns the embedding of a recording, (1, V) by the pretrained encoder or (1, E) by the model's own."""
        if self.config.model.use_pretrained_speaker_encoder:
            if self._speaker_encoder is None:
                self._speaker_encoder = load_speaker_encoder(self.config.features, self._speaker_encoder_weights)
            return torch.from_numpy(self._speaker_encoder.embed(samples, self.sample_rate))[None]
        speaker = self.voice.model.conditioning.encode_reference(self._reference(samples)).speaker
        assert speaker is not None  # a model without a pretrained encoder has its own
        return speaker

    def _reference_timbre(
        self, samples: np.ndarray, pieces: Sequence[str], request: _Request, similarity: float | None
    ) -> _ReferenceTimbre:
        """Measures the timbre of a reference, and how that of its clone differs.

        A model that was trained on few speakers hardly changes its spectrum with the speaker embedding. The clone's
        spectrum is measured on shipped sentences, so that it is the same for every text; in a language without any, on
        the text itself.

        Args:
            samples: (N,) reference, trimmed and normalized.
            pieces: Pieces of the text.
            request: Inputs of the clone, without the timbre of the reference.
            similarity: As in `synthesize`.
        """
        if request.language in shipped_languages():
            pieces = shipped_list(request.language)
        sentences = islice(_encoded(pieces, request.language), CALIBRATION_SENTENCES)
        spectrum = average_spectrum(
            np.concatenate([self._predict(tokens, request, AS_PREDICTED)[0] for tokens in sentences])
        )
        mel = MelExtractor(self.config.audio).numpy(samples)
        difference = average_spectrum(mel) - spectrum
        size = float(np.sqrt(np.square(difference).mean()))
        strength = float(np.interp(size, (KNOWN_SPEAKER, UNKNOWN_SPEAKER), (0.0, 1.0)))
        correction = difference * np.float32(strength)
        return _ReferenceTimbre(
            spectral_correction=correction,
            spectrum=spectrum + correction,
            frames=FrameMatcher(mel),
            similarity=strength * DEFAULT_SIMILARITY if similarity is None else similarity,
        )

    def _read_reference(self, path: Path) -> np.ndarray:
        """Returns the samples (N,) of a recording, trimmed and normalized as in the features."""
        recording = read_recording(path)
        samples = resample(recording.samples, recording.sample_rate, self.sample_rate)
        warnings = check_reference(path, samples, self.config.audio, self.config.features)
        for warning in (*(f"{path}: {note.detail}" for note in recording.notes), *warnings):
            if warning not in self._warned:  # a recording can be the reference of both speaker and style
                self._warned.add(warning)
                log.warning("%s", warning)
        return trim_and_normalize(samples, *trim_and_gain(samples, self.sample_rate, self.config.features))

    def _reference(self, samples: np.ndarray) -> Reference:
        return Reference.from_recordings([MelExtractor(self.config.audio).numpy(samples)])

    def _style(self, speaker: Speaker, controls: StyleControls, cloned: Path | str | None) -> Style:
        settings = self.config.model
        for name, given, present, key in (
            ("style_weights", controls.token_weights is not None, settings.enable_gst, "enable_gst"),
            ("latent", controls.latent is not None, settings.use_variational_encoder, "use_variational_encoder"),
            ("variation", controls.variation > 0, settings.use_variational_encoder, "use_variational_encoder"),
        ):
            if given and not present:
                raise SynthesisError(f"{name}: this voice was trained without model.{key}")
        style, reference = Style(temperature=controls.variation), controls.reference or cloned
        if reference is not None and settings.has_style:
            samples = self._read_reference(Path(reference))
            encoding = self.voice.model.conditioning.encode_reference(self._reference(samples))
            style.token_weights, style.latent = encoding.token_weights, encoding.latent
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
        """Returns normalized weights of the style tokens (1, heads, tokens), the same for every head."""
        heads, tokens = self.config.model.gst_num_heads, self.config.model.gst_num_style_tokens
        row = torch.tensor(list(weights), dtype=torch.float32)
        if len(row) != tokens or bool((row < 0).any()) or not 0 < float(row.sum()) < math.inf:
            raise SynthesisError(
                f"style_weights are {list(weights)}; give {tokens} numbers, at least 0 and not all 0: "
                "one for each style token"
            )
        return (row / row.sum()).expand(1, heads, tokens)
