"""Evaluates a voice on unseen and on training sentences, and writes metrics and a listening report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from model.audio.dtw import dtw_path
from model.audio.io import read_audio, resample, write_audio
from model.audio.mel import MelExtractor
from model.audio.pitch import track_pitch
from model.audio.trimming import trim_and_normalize
from model.config.evaluation import EvaluateSettings, EvaluationConfig
from model.corpus.manifest import read_manifest
from model.corpus.timings import read_alignments
from model.corpus.token_times import token_times
from model.errors import FeatureError
from model.evaluation import metrics, recognizer
from model.evaluation.examination import EvaluatedVoice, choose, choose_texts, examination, known_sentences
from model.evaluation.metrics import Metric, not_applicable
from model.evaluation.phone_error import PhoneErrors
from model.evaluation.quality import SAMPLE_RATE as QUALITY_RATE
from model.evaluation.quality import PredictedQuality
from model.evaluation.report import write_report
from model.evaluation.results import (
    COPY,
    KINDS,
    PARTS,
    RECORDING,
    SYNTHESIZED,
    UNSEEN,
    SentenceResult,
    by_group,
    gate_metrics,
    summarize,
)
from model.evaluation.speaker_similarity import SpeakerSimilarity
from model.evaluation.texts import SpokenText
from model.features.index import IndexedClip
from model.features.store import FeatureStore
from model.files import write_json
from model.text.encode import encode
from model.text.normalize import normalize
from model.threads import single_threaded

METRICS, REPORT, AUDIO = "metrics.json", "report.html", "audio"
Progress = Callable[[int, int], None]
"""Called with the units of work done and their total."""


def evaluate(
    voice: Path,
    features: Path | FeatureStore,
    corpus: Path,
    settings: EvaluateSettings,
    output: Path,
    progress: Progress = lambda *_: None,
    exclude: frozenset[str] = frozenset(),
    about: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Evaluates the voice in a folder; see `evaluate_voice`."""
    from model.synthesis import Synthesizer

    store = FeatureStore.of(features)
    synthesizer = Synthesizer(voice)
    store.check(synthesizer.config.audio)
    return evaluate_voice(
        synthesizer,
        store,
        corpus,
        settings,
        output,
        progress,
        lineage=[entry["uri"] for entry in synthesizer.voice.lineage],
        exclude=exclude,
        about=about or {"Voice": str(voice), "Data": str(corpus)},
    )


def evaluate_voice(
    voice: EvaluatedVoice,
    store: FeatureStore,
    corpus: Path,
    settings: EvaluateSettings,
    output: Path,
    progress: Progress = lambda *_: None,
    lineage: Sequence[str] = (),
    exclude: frozenset[str] = frozenset(),
    about: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Evaluates a voice and writes `metrics.json`, `report.html` and the audio of unseen sentences (`audio/`).

    All metrics are computed on waveforms, so they include the vocoder. Copy-synthesis (the recording's own mel through
    the vocoder) shows how much of an error is due to the vocoder.

    Args:
        voice: The voice.
        store: Features of the corpus.
        corpus: Folder of the corpus that the features were made from.
        settings: Limits on the number of sentences, and the recognizer.
        output: Folder for these files.
        progress: Called with the units of work done and their total: each sentence is synthesized, compared with its
            recording and, where there is a recognizer, transcribed. Each text is synthesized and transcribed.
        lineage: Voice that its training started from, and that voice's ancestors, youngest first.
        exclude: Hashes of sentences that do not count as unseen although this voice was not trained on them: those of
            the voices that it is compared with.
        about: Entries of the report's header, such as the names of voice and data: label -> text.

    Returns:
        The contents of `metrics.json`: `gate`, `unseen` and `training` (metric name -> kind -> `value`, `reason` and,
        for means of several sentences, `interval`), `real_time_factor`, `groups` (by language and speaker), `clips`,
        `texts` (sentences without recordings), `examination` (hash and size of the set of unseen sentences),
        `lineage`, `left_out` (reason -> number of clips), and `few_clips` (notes about few held-out recordings).

    Raises:
        FeatureError: features and corpus do not belong together, or the voice speaks no language of the corpus.
    """
    store.check(settings.audio)
    chosen, left_out = choose(store, voice, settings.evaluation, exclude)
    if not chosen:
        raise FeatureError(f"{store.path}: no clip can be evaluated ({left_out}); give another corpus")
    speakers = {store.clips[position].speaker for position, _ in chosen}
    evaluator = _Evaluator(voice, store, corpus, speakers, [position for position, part in chosen if part == UNSEEN])
    recognized = [recognizer.supports(store.clips[position].language) for position, _ in chosen]
    needed = settings.evaluation.recognizer != "none" and any(recognized)
    seen = exclude | known_sentences(store, voice)
    missing = choose_texts(store, voice, chosen, settings.evaluation, seen) if needed else []
    total = 2 * len(chosen) + needed * sum(recognized) + 2 * len(missing)
    done = count(1)
    # All sentences are synthesized first, so that nothing else runs while the real-time factor is measured.
    sentences, texts = [], []
    for position, part in chosen:
        sentences.append(evaluator.synthesize(position, part))
        progress(next(done), total)
    for text, language, speaker in missing:
        texts.append(evaluator.speak(text, language, speaker))
        progress(next(done), total)
    positions = [position for position, _ in chosen]
    workers = min(2, len(os.sched_getaffinity(0)))
    with single_threaded(), recognizer.Recognizer(workers) if needed else nullcontext() as background:
        evaluator.compute_metrics(sentences, positions, background, lambda: progress(next(done), total))
        if background is not None:
            evaluator.transcribe(texts, background, lambda: progress(next(done), total))
    for sentence in sentences:
        sentence.metrics["character_error"] = _character_errors(sentence, settings.evaluation)

    write_audio_files(output, sentences, texts, store.audio.sample_rate)
    result = {
        "gate": gate_metrics(sentences, texts, settings.evaluation.max_recording_error),
        **{part: summarize(sentence for sentence in sentences if sentence.part == part) for part in PARTS},
        "real_time_factor": Metric(evaluator.synthesis_seconds / evaluator.speech_seconds).as_dict(),
        "groups": by_group(sentences),
        "lineage": list(lineage),
        "left_out": left_out,
        "few_clips": few_clips(sentences, texts, settings.evaluation),
        "examination": examination(sentences, texts),
        "clips": [sentence.as_dict() for sentence in sentences],
        "texts": [text.as_dict() for text in texts],
    }
    write_report(
        output / REPORT,
        result,
        sentences,
        texts,
        about={**(about or {}), "Date": time.strftime("%Y-%m-%d %H:%M")},
        sample_rate=store.audio.sample_rate,
        recognizer=settings.evaluation.recognizer,
        vocoder=voice.vocoder.name,
    )
    write_json(output / METRICS, result)  # last: its presence means that the report is there too
    return result


def write_audio_files(
    output: Path, sentences: Sequence[SentenceResult], texts: Sequence[SpokenText], sample_rate: int
) -> None:
    """Writes the audio of unseen sentences and of texts, which comparisons of voices and listening tests play."""
    for number, sentence in enumerate(sentences):
        if sentence.part == UNSEEN:
            for kind, samples in sentence.audio.items():
                sentence.files[kind] = f"{AUDIO}/{number:03d}-{kind}.flac"
                write_audio(output / sentence.files[kind], samples, sample_rate)
    for number, text in enumerate(texts):
        text.file = f"{AUDIO}/text-{number:03d}.flac"
        write_audio(output / text.file, text.samples, sample_rate)


def few_clips(sentences: Sequence[SentenceResult], texts: Sequence[SpokenText], limits: EvaluationConfig) -> list[str]:
    """Returns notes about metrics that are unreliable, or computed on other texts, as few recordings are held out."""
    clips = [sentence.clip for sentence in sentences if sentence.part == UNSEEN]
    unseen, enough = len(clips), min(limits.min_sentences, limits.max_clips)
    notes = []
    if few := unseen < enough:
        notes.append(
            f"Distances to recordings and speaker similarity rest on {unseen} held-out recording{'s' * (unseen != 1)}: "
            "small differences between voices are not significant"
        )
    if texts and sum(recognizer.supports(clip.language) for clip in clips) < enough:
        notes.append(f"Intelligibility is measured on {len(texts)} further texts too, which have no recording")
    elif few:
        notes.append(
            "Intelligibility is not measured on further texts: the recognizer is off, or has no model of the language"
        )
    return notes


class _Evaluator:
    """Voice, corpus and models of an evaluation, loaded once.

    Args:
        voice, store, corpus: As of `evaluate_voice`.
        speakers: Speakers of the evaluated clips.
        unseen: Positions of the evaluated clips of unseen sentences.

    Attributes:
        synthesis_seconds: Time that synthesis has taken.
        speech_seconds: Duration of the synthesized speech.
    """

    def __init__(
        self,
        voice: EvaluatedVoice,
        store: FeatureStore,
        corpus: Path,
        speakers: set[str],
        unseen: Sequence[int] = (),
    ) -> None:
        self.voice, self.store, self.corpus = voice, store, corpus
        self.recordings = {clip.id: clip for clip in read_manifest(corpus)}
        missing = [clip.id for clip in store.clips if clip.id not in self.recordings]
        if missing:
            raise FeatureError(
                f"{store.path}: {len(missing)} clips, {missing[0]} first, are not in {corpus}; "
                "give the corpus that these features were built from"
            )
        self.timings = read_alignments(corpus)
        self.mel_extractor = MelExtractor(store.audio)
        self.speaker_similarity = SpeakerSimilarity(store, self.read_recording, speakers)
        self.phone_errors = PhoneErrors(store, unseen)
        self.quality = PredictedQuality()
        self.synthesis_seconds = self.speech_seconds = 0.0

    def synthesize(self, position: int, part: str) -> SentenceResult:
        """Synthesizes the text of a clip; a speaker that the voice lacks is cloned from another clip."""
        clip = self.store.clips[position]
        reference = None if clip.speaker in self.voice.speakers else self._reference(position)
        start = time.perf_counter()
        speech = self.voice.synthesize(
            clip.text, language=clip.language, speaker="" if reference else clip.speaker, reference=reference
        )
        self.synthesis_seconds += time.perf_counter() - start
        self.speech_seconds += len(speech.samples) / self.store.audio.sample_rate
        return SentenceResult(clip=clip, part=part, speech=speech)

    def speak(self, text: str, language: str, speaker: str) -> SpokenText:
        """Synthesizes a text that has no recording."""
        start = time.perf_counter()
        samples = self.voice.synthesize(text, language=language, speaker=speaker).samples
        self.synthesis_seconds += time.perf_counter() - start
        self.speech_seconds += len(samples) / self.store.audio.sample_rate
        symbols = encode(text, language).ids[:, 0]
        return SpokenText(
            text=text,
            language=language,
            speaker=speaker,
            samples=samples,
            dnsmos=self._predict_quality(samples),
            phone_error=self.phone_errors.score(self.mel_extractor.numpy(samples), symbols, language),
        )

    def transcribe(
        self, texts: Sequence[SpokenText], background: recognizer.Recognizer, advance: Callable[[], None]
    ) -> None:
        """Adds the transcripts of texts without recordings."""
        rate = self.store.audio.sample_rate
        pending = [background.submit(resample(text.samples, rate, recognizer.SAMPLE_RATE)) for text in texts]
        for text, transcript in zip(texts, pending, strict=True):
            text.transcript = transcript.result()
            advance()

    def compute_metrics(
        self,
        sentences: Sequence[SentenceResult],
        positions: Sequence[int],
        background: recognizer.Recognizer | None,
        advance: Callable[[], None],
    ) -> None:
        """Adds transcripts, from background threads where there is a recognizer, and meanwhile all other metrics.

        Args:
            sentences: The synthesized sentences, to which the results are added.
            positions: Positions of their clips in the store.
            background: Recognizer; None for no transcripts.
            advance: Called after each sentence is compared, and after each is transcribed.
        """
        pending: list[tuple[SentenceResult, dict[str, Future[str]]]] = []
        for sentence, position in zip(sentences, positions, strict=True):
            self.add_references(sentence, position)
            if background is not None and recognizer.supports(sentence.clip.language):
                resampled = {
                    kind: resample(samples, self.store.audio.sample_rate, recognizer.SAMPLE_RATE)
                    for kind, samples in sentence.audio.items()
                }
                pending.append((sentence, {kind: background.submit(samples) for kind, samples in resampled.items()}))
            self.compare(sentence, position)
            advance()
        for sentence, transcripts in pending:
            sentence.transcripts.update({kind: transcript.result() for kind, transcript in transcripts.items()})
            advance()

    def add_references(self, sentence: SentenceResult, position: int) -> None:
        """Adds the audio and mels of the recording, of copy-synthesis and of synthesis."""
        sentence.audio = {
            RECORDING: self.read_recording(position),
            COPY: self.voice.vocoder(self.store.clip(position).mel),
            SYNTHESIZED: sentence.speech.samples,
        }
        sentence.mels = {kind: self.mel_extractor.numpy(samples) for kind, samples in sentence.audio.items()}

    def read_recording(self, position: int) -> np.ndarray:
        """Returns the samples (N,) of a clip, trimmed and normalized as in its features."""
        clip, rate = self.store.clips[position], self.store.audio.sample_rate
        start = round(clip.trimmed * rate)
        recording = read_audio(self.corpus / self.recordings[clip.id].audio, rate)
        return trim_and_normalize(recording, start, start + round(clip.seconds * rate), clip.gain)

    def compare(self, sentence: SentenceResult, position: int) -> None:
        """Adds the metrics of copy-synthesis and synthesis against the recording, and those of its alignment."""
        features = self.store.clip(position)
        durations, soft = self.voice.align(features.ids, features.mel)
        sentence.soft_alignment = soft
        predicted = np.asarray(sentence.speech.durations)
        sentence.metrics = {
            "duration_error": {SYNTHESIZED: metrics.duration_error(predicted, durations)},
            "length_error": {SYNTHESIZED: metrics.length_error(len(sentence.speech.mel), len(features.mel))},
            "alignment_coverage": {RECORDING: metrics.alignment_coverage(durations)},
            "alignment_sharpness": {RECORDING: metrics.alignment_sharpness(soft)},
            "alignment_monotonicity": {RECORDING: metrics.alignment_monotonicity(soft)},
            "boundary_error": {RECORDING: self._boundary_error(sentence.clip, durations)},
        }
        audio, settings = self.store.audio, self.store.index.features
        f0 = {kind: track_pitch(samples, audio, settings) for kind, samples in sentence.audio.items()}
        clips = [sentence.audio[kind] for kind in KINDS]
        similarities = self.speaker_similarity.compare(clips, sentence.clip.speaker, position)
        cepstrum = metrics.mel_cepstrum(sentence.mels[RECORDING])
        for kind, values in zip(KINDS, similarities, strict=True):
            values["pitch_range"] = metrics.pitch_range(f0[kind])
            values["dnsmos"] = self._predict_quality(sentence.audio[kind])
            values["phone_error"] = self.phone_errors.score(
                sentence.mels[kind], features.ids[:, 0], sentence.clip.language
            )
            if kind != RECORDING:
                path = dtw_path(metrics.mel_cepstrum(sentence.mels[kind]), cepstrum)
                mels, pitches = (sentence.mels[kind], sentence.mels[RECORDING]), (f0[kind], f0[RECORDING])
                values["mel_cepstral_distortion"] = metrics.mel_cepstral_distortion(*mels, path)
                values["pitch_error"] = metrics.pitch_error(*pitches, path)
                values["pitch_frame_error"] = metrics.pitch_frame_error(*pitches, path)
                values["voicing_error"] = metrics.voicing_error(*pitches, path)
            for name, value in values.items():
                sentence.metrics.setdefault(name, {})[kind] = value

    def _predict_quality(self, samples: np.ndarray) -> Metric:
        return self.quality.score(resample(samples, self.store.audio.sample_rate, QUALITY_RATE))

    def _reference(self, position: int) -> Path:
        """Returns a recording of the same speaker, of another clip where there is one."""
        speaker = self.store.clips[position].speaker
        others = [other for other in self.store.clips_of_speaker[speaker] if other != position] or [position]
        return self.corpus / self.recordings[self.store.clips[others[0]].id].audio

    def _boundary_error(self, clip: IndexedClip, durations: np.ndarray) -> Metric:
        if clip.id not in self.timings:
            return not_applicable("the true times of the phones are not known (only of generated speech)")
        tokens = encode(clip.text, clip.language)
        if len(tokens.ids) != len(durations):
            return not_applicable("the text now gives other tokens than when the features were built")
        frame_seconds = self.store.audio.hop_length / self.store.audio.sample_rate
        true_seconds = token_times(tokens, self.timings[clip.id]) - clip.trimmed
        return metrics.boundary_error(durations, true_seconds, frame_seconds)


def _character_errors(sentence: SentenceResult, settings: EvaluationConfig) -> dict[str, Metric]:
    clip = sentence.clip
    if settings.recognizer == "none":
        return _no_character_error("no recognizer (evaluation.recognizer: none)")
    if not recognizer.supports(clip.language):
        return _no_character_error(f"the recognizer supports English only, not {clip.language}")
    spoken = normalize(clip.text, clip.language).text
    if not recognizer.letters(spoken):
        return _no_character_error("the text has no letters to recognize")
    return {kind: Metric(recognizer.character_error(spoken, sentence.transcripts[kind])) for kind in KINDS}


def _no_character_error(reason: str) -> dict[str, Metric]:
    return dict.fromkeys(KINDS, not_applicable(reason))
