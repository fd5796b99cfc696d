"""Measures a voice on sentences it never saw and on sentences it was trained on, and writes a report to listen to."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import Future
from contextlib import nullcontext
from itertools import zip_longest
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from model.audio.dtw import dtw_path
from model.audio.io import read_audio, resample
from model.audio.mel import MelExtractor
from model.audio.pitch import track_pitch
from model.audio.trimming import trim_and_normalize
from model.config.evaluation import EvaluateSettings, EvaluationConfig
from model.corpus.manifest import read_manifest
from model.corpus.timings import read_alignments
from model.corpus.token_times import token_times
from model.errors import FeatureError
from model.evaluation import metrics, recognizer
from model.evaluation.evaluated import (
    COPY,
    KINDS,
    PARTS,
    RECORDING,
    SYNTHESISED,
    TRAINING,
    UNSEEN,
    Evaluated,
    by_group,
    described,
    gate,
    summarise,
)
from model.evaluation.judge import SpeakerJudge
from model.evaluation.metrics import Measure, not_applicable
from model.evaluation.report import write_report
from model.features.index import IndexedClip
from model.features.store import FeatureStore
from model.text.encode import encode
from model.text.normalize import normalize
from model.threads import single_threaded
from model.vocoder import Vocoder

METRICS, REPORT = "metrics.json", "report.html"


class Speaking(Protocol):
    """What the evaluation asks of a voice; `model.synthesis.Synthesizer` is one."""

    speakers: list[str]
    languages: list[str]
    vocoder: Vocoder

    def synthesize(self, text: str, language: str = "", speaker: str = "", reference: Path | None = None) -> Any: ...

    def align(self, ids: np.ndarray, mel: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


def evaluate(
    voice: Path, features: Path | FeatureStore, corpus: Path, config: EvaluateSettings, output: Path
) -> dict[str, Any]:
    """Evaluate an exported voice; see `evaluate_voice`."""
    from model.synthesis import Synthesizer

    store = FeatureStore.of(features)
    synthesizer = Synthesizer.load(voice)
    store.check(synthesizer.config.audio)
    return evaluate_voice(synthesizer, store, corpus, config, output)


def evaluate_voice(
    voice: Speaking, store: FeatureStore, corpus: Path, config: EvaluateSettings, output: Path
) -> dict[str, Any]:
    """Measure a voice and write `metrics.json` and `report.html`.

    Everything is measured on waveforms, so that it takes the vocoder in: copy-synthesis (the recording's own mel
    through the vocoder) shows how much of an error is the vocoder's.

    Args:
        voice: What speaks.
        store: Features of the corpus.
        corpus: Folder of the corpus that the features were made from.
        config: Section `evaluation` acts.
        output: Folder for the two files.

    Returns:
        The contents of `metrics.json`: `gate`, `unseen`, `training` (name -> kind -> measure, each with `value` and
        `reason`), `real_time_factor`, `groups` (by language and speaker), `clips`, `left_out`.

    Raises:
        FeatureError: features and corpus do not belong together, or nothing of it can be spoken by this voice.
    """
    store.check(config.audio)
    chosen, left_out = choose(store, voice, config.evaluation)
    if not chosen:
        raise FeatureError(f"{store.path}: this voice speaks none of the corpus: {left_out}; evaluate it on another")
    bench = _Bench(voice, store, corpus, {store.clips[position].speaker for position, _ in chosen})
    # Speech first, all of it: the time it takes is reported, so nothing else may run beside it.
    evaluated = [bench.speak(position, part) for position, part in chosen]
    with single_threaded():
        _transcribe_and_measure(bench, evaluated, chosen, config)
    for item in evaluated:
        item.measures["character_error"] = _character_errors(item, config)

    result = {
        "gate": gate([item for item in evaluated if item.part == UNSEEN] or evaluated),
        **{part: summarise(item for item in evaluated if item.part == part) for part in PARTS},
        "real_time_factor": Measure(bench.seconds / bench.spoken_seconds).as_dict(),
        "groups": by_group(evaluated),
        "left_out": left_out,
        "clips": [described(item) for item in evaluated],
    }
    output.mkdir(parents=True, exist_ok=True)
    write_report(output / REPORT, result, evaluated, store, config, voice.vocoder.name)
    partial = output / f".{METRICS}.partial"
    partial.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")
    os.replace(partial, output / METRICS)  # last: whoever finds it finds the report too
    return result


def _transcribe_and_measure(
    bench: _Bench, evaluated: list[Evaluated], chosen: list[tuple[int, str]], config: EvaluateSettings
) -> None:
    """Recognition in other threads, meanwhile everything else here."""
    heard = [item for item in evaluated if recognizer.understands(item.clip.language)]
    wanted = config.evaluation.recognizer != "none" and bool(heard)
    workers = min(2, len(os.sched_getaffinity(0)))
    with recognizer.Recognizer(workers) if wanted else nullcontext() as listener:
        pending: list[tuple[Evaluated, str, Future[str]]] = []
        for item, (position, _) in zip(evaluated, chosen, strict=True):
            bench.listen_beside(item, position)
            if wanted and item in heard:
                for kind, samples in item.sounds.items():
                    audible = resample(samples, bench.store.audio.sample_rate, recognizer.SAMPLE_RATE)
                    pending.append((item, kind, listener.submit(audible)))
            bench.measure(item, position)
        for item, kind, future in pending:
            item.transcripts[kind] = future.result()


def choose(
    store: FeatureStore, voice: Speaking, limits: EvaluationConfig
) -> tuple[list[tuple[int, str]], dict[str, int]]:
    """Clips of the held-out splits and as many of the training split, each speaker in turn, up to either limit.

    Returns:
        (position, part) of the chosen, and reason -> number of clips that this voice cannot speak.
    """
    left_out: dict[str, int] = {}
    chosen: list[tuple[int, str]] = []
    for part, splits in ((UNSEEN, ("test", "validation")), (TRAINING, ("train",))):
        queues: dict[tuple[str, str], list[int]] = {}
        for split in splits:
            for position in store.split(split):
                clip = store.clips[position]
                if clip.language not in voice.languages:
                    reason = f"language {clip.language}, which the voice does not speak"
                    left_out[reason] = left_out.get(reason, 0) + 1
                    continue
                queues.setdefault((clip.language, clip.speaker), []).append(position)
        in_turn = [position for turn in zip_longest(*queues.values()) for position in turn if position is not None]
        taken: list[int] = []
        seconds = 0.0
        for position in in_turn[: limits.max_clips]:
            if seconds >= limits.max_seconds:
                break
            taken.append(position)
            seconds += store.clips[position].seconds
        chosen += [(position, part) for position in sorted(taken)]
    return chosen, left_out


class _Bench:
    """What measuring needs, loaded once; keeps the time that synthesis took."""

    def __init__(self, voice: Speaking, store: FeatureStore, corpus: Path, speakers: set[str]) -> None:
        self.voice, self.store, self.corpus = voice, store, corpus
        self.recordings = {clip.id: clip for clip in read_manifest(corpus)}
        missing = [clip.id for clip in store.clips if clip.id not in self.recordings]
        if missing:
            raise FeatureError(
                f"{store.path}: {len(missing)} clips, {missing[0]} first, are not in {corpus}; "
                "give the corpus that these features were built from"
            )
        self.timings = read_alignments(corpus)
        self.extractor = MelExtractor(store.audio)
        self.vocoder = voice.vocoder
        self.judge = SpeakerJudge(store, self.recording, speakers)
        self.seconds = self.spoken_seconds = 0.0

    def speak(self, position: int, part: str) -> Evaluated:
        """Synthesise the text of a clip."""
        clip = self.store.clips[position]
        reference = None if clip.speaker in self.voice.speakers else self._reference(position)
        began = time.perf_counter()
        speech = self.voice.synthesize(
            clip.text, language=clip.language, speaker="" if reference else clip.speaker, reference=reference
        )
        self.seconds += time.perf_counter() - began
        self.spoken_seconds += len(speech.samples) / self.store.audio.sample_rate
        return Evaluated(clip, part, speech)

    def listen_beside(self, item: Evaluated, position: int) -> None:
        """Recording and copy-synthesis of a clip, to compare with."""
        item.sounds = {
            RECORDING: self.recording(position),
            COPY: self.vocoder(self.store.clip(position).mel),
            SYNTHESISED: item.speech.samples,
        }
        item.mels = {kind: self.extractor.numpy(samples) for kind, samples in item.sounds.items()}

    def recording(self, position: int) -> np.ndarray:
        """(N,) samples of a clip as the features were made of it."""
        clip, rate = self.store.clips[position], self.store.audio.sample_rate
        start = round(clip.trimmed * rate)
        recording = read_audio(self.corpus / self.recordings[clip.id].audio, rate)
        return trim_and_normalize(recording, start, start + round(clip.seconds * rate), clip.gain)

    def measure(self, item: Evaluated, position: int) -> None:
        """Copy-synthesis and synthesis against the recording, and the alignment of the recording."""
        features = self.store.clip(position)
        durations, item.soft = self.voice.align(features.ids, features.mel)
        spoken = np.asarray(item.speech.durations)
        item.measures = {
            "duration_error": {SYNTHESISED: metrics.duration_error(spoken, durations)},
            "length_error": {SYNTHESISED: metrics.length_error(len(item.speech.mel), len(features.mel))},
            "alignment_coverage": {RECORDING: metrics.alignment_coverage(durations)},
            "alignment_sharpness": {RECORDING: metrics.alignment_sharpness(item.soft)},
            "alignment_monotonicity": {RECORDING: metrics.alignment_monotonicity(item.soft)},
            "boundary_error": {RECORDING: self._boundary_error(item.clip, durations)},
        }
        audio, settings = self.store.audio, self.store.index.features
        f0 = {kind: track_pitch(samples, audio, settings) for kind, samples in item.sounds.items()}
        judged = self.judge.compare([item.sounds[kind] for kind in KINDS], item.clip.speaker, position)
        cepstrum = metrics.mel_cepstrum(item.mels[RECORDING])
        for kind, values in zip(KINDS, judged, strict=True):
            values["pitch_range"] = metrics.pitch_range(f0[kind])
            if kind != RECORDING:
                path = dtw_path(metrics.mel_cepstrum(item.mels[kind]), cepstrum)
                mels, pitches = (item.mels[kind], item.mels[RECORDING]), (f0[kind], f0[RECORDING])
                values["mel_cepstral_distortion"] = metrics.mel_cepstral_distortion(*mels, path)
                values["pitch_error"] = metrics.pitch_error(*pitches, path)
                values["pitch_frame_error"] = metrics.pitch_frame_error(*pitches, path)
                values["voicing_error"] = metrics.voicing_error(*pitches, path)
            for name, value in values.items():
                item.measures.setdefault(name, {})[kind] = value

    def _reference(self, position: int) -> Path:
        """Recording of another clip of the same speaker, for a speaker whom the voice does not know by name."""
        speaker = self.store.clips[position].speaker
        own = [other for other in self.store.clips_of_speaker[speaker] if other != position] or [position]
        return self.corpus / self.recordings[self.store.clips[own[0]].id].audio

    def _boundary_error(self, clip: IndexedClip, durations: np.ndarray) -> Measure:
        if clip.id not in self.timings:
            return not_applicable("the true times of the phones are not known (only of generated speech)")
        tokens = encode(clip.text, clip.language)
        if len(tokens.ids) != len(durations):
            return not_applicable("the text is encoded otherwise than when the features were built")
        frame = self.store.audio.hop_length / self.store.audio.sample_rate
        return metrics.boundary_error(durations, token_times(tokens, self.timings[clip.id]) - clip.trimmed, frame)


def _character_errors(item: Evaluated, config: EvaluateSettings) -> dict[str, Measure]:
    reason = ""
    spoken = ""
    if config.evaluation.recognizer == "none":
        reason = "no recogniser (evaluation.recognizer: none)"
    elif not recognizer.understands(item.clip.language):
        reason = f"the recogniser understands English only, not {item.clip.language}"
    else:
        spoken = normalize(item.clip.text, item.clip.language).text
        if not recognizer.letters(spoken):
            reason = "the text has no letters to recognise"
    if reason:
        return dict.fromkeys(KINDS, not_applicable(reason))
    return {kind: Measure(recognizer.character_error(spoken, item.transcripts[kind])) for kind in KINDS}
