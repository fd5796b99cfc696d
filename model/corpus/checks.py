"""The checks of the `validate` stage, of single clips and of clips in comparison with others."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from model.config.data import ValidationConfig
from model.corpus.manifest import Clip
from model.corpus.metrics import ClipMetrics
from model.corpus.problems import BAD, NOTE, SUSPECT, Problem
from model.errors import TextError
from model.text.encode import encode
from model.text.identify import foreign_share, other_language, spoken_length

MIN_CLIPS = 20
"""Smallest number of clips of a language or speaker from which its usual values are estimated."""
_MAD_TO_STD = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def check_text(clip: Clip, origin: str, limits: ValidationConfig) -> Iterator[Problem]:
    """Yields the problems of one clip's manifest entry: duration, sample rate, text and language."""
    problem = _reporter(clip, origin)
    text = clip.text.strip()
    if clip.source_sample_rate < limits.min_sample_rate:
        detail = f"recorded at {clip.source_sample_rate} Hz; validation.min_sample_rate is {limits.min_sample_rate}"
        yield problem("low_sample_rate", detail)
    if clip.seconds > limits.max_seconds:
        detail = f"{clip.seconds:.2f} s; validation.max_seconds is {limits.max_seconds} (left out, never cut)"
        yield problem("too_long", detail)
    if clip.seconds < limits.min_seconds:
        yield problem("too_short", f"{clip.seconds:.2f} s; validation.min_seconds is {limits.min_seconds}")
    if not text:
        yield problem("empty_transcript", "no text")
        return
    speed = spoken_length(text) / clip.seconds
    if not limits.min_characters_per_second <= speed <= limits.max_characters_per_second:
        bounds = f"{limits.min_characters_per_second} to {limits.max_characters_per_second}"
        detail = f"{speed:.1f} characters per second ({len(text)} in {clip.seconds:.2f} s); accepted are {bounds}"
        yield problem("text_duration_mismatch", detail)
    foreign = foreign_share(text, clip.language)
    if foreign > limits.max_foreign_share:
        detail = f"{foreign:.0%} of its letters are not in the script of language {clip.language}"
        yield problem("wrong_script", f"{detail}; validation.max_foreign_share is {limits.max_foreign_share}", SUSPECT)
    elif other := other_language(text, clip.language):
        yield problem("other_language", f"reads like {other}, but the clip is said to be {clip.language}", SUSPECT)


def check_speech(clip: Clip, origin: str) -> Iterator[Problem]:
    """Yields the problems of encoding the text of one clip."""
    if not clip.text.strip():
        return
    problem = _reporter(clip, origin)
    try:
        unknown = encode(clip.text, clip.language).unknown
    except TextError as error:
        yield problem("unspeakable_text", str(error))
        return
    if unknown:
        listed = ", ".join(f"{character!r} x{count}" for character, count in unknown.most_common())
        yield problem("unknown_characters", f"not spoken: {listed}", NOTE)


def check_audio(clip: Clip, origin: str, metrics: ClipMetrics, limits: ValidationConfig) -> Iterator[Problem]:
    """Yields the problems of one clip's recording: level, clipping, offset, noise and silence."""
    problem = _reporter(clip, origin)
    if metrics.level < limits.min_level_db:
        detail = f"level {metrics.level:.1f} dB full scale; validation.min_level_db is {limits.min_level_db}"
        yield problem("silent", detail)
    if metrics.clipped > limits.max_clipped_share:
        detail = f"{metrics.clipped:.2%} of the samples at full scale"
        yield problem("clipped", f"{detail}; validation.max_clipped_share is {limits.max_clipped_share}")
    if abs(metrics.offset) > limits.max_offset:
        detail = f"DC offset {metrics.offset:+.3f} of full scale; validation.max_offset is {limits.max_offset}"
        yield problem("offset", detail, SUSPECT)
    if metrics.contrast < limits.min_contrast_db:
        detail = f"speech is {metrics.contrast:.1f} dB above the quietest frames ({metrics.noise:.0f} dB full scale)"
        yield problem("noisy", f"{detail}; validation.min_contrast_db is {limits.min_contrast_db}", SUSPECT)
    for end, seconds in (("before", metrics.lead), ("after", metrics.trail)):
        if seconds > limits.max_edge_silence:
            detail = f"{seconds:.2f} s of silence {end} the speech, trimmed when features are made"
            limit = f"validation.max_edge_silence is {limits.max_edge_silence}"
            yield problem("edge_silence", f"{detail}; {limit}", NOTE)


def compare_texts(clips: Sequence[Clip], origins: Mapping[str, str], limits: ValidationConfig) -> Iterator[Problem]:
    """Yields the problems of manifest entries in comparison with other clips: sample rate, text and speed."""
    yield from _other_sample_rates(clips, origins)
    yield from _repeated_texts(clips, origins)
    for language, members in _grouped(clips, lambda clip: clip.language).items():
        texts = [clip for clip in members if clip.text.strip()]
        speeds = np.log([spoken_length(clip.text) / clip.seconds for clip in texts])
        for clip, distance, speed in zip(texts, _deviations(speeds), np.exp(speeds), strict=True):
            if abs(distance) > limits.max_speed_deviation:
                usual = float(np.exp(np.median(speeds)))
                detail = f"{speed:.1f} characters per second; {usual:.1f} are usual in {language} ({distance:+.1f} "
                detail += f"deviations, validation.max_speed_deviation is {limits.max_speed_deviation})"
                yield _reporter(clip, origins[clip.id])("unusual_speed", detail, SUSPECT)


def compare_audio(
    clips: Sequence[Clip], origins: Mapping[str, str], metrics: Mapping[str, ClipMetrics], limits: ValidationConfig
) -> Iterator[Problem]:
    """Yields the problems of recordings in comparison with other clips: duplicates, and levels unusual for the
    speaker."""
    copies = _grouped(clips, lambda clip: metrics[clip.id].fingerprint)
    for same in (members for members in copies.values() if len(members) > 1):
        texts = {clip.text for clip in same}
        for clip in same if len(texts) > 1 else same[1:]:
            others = ", ".join(other.id for other in same if other is not clip)
            if len(texts) > 1:
                detail, severity = f"has the samples of {others}, with another text", BAD
            else:
                detail, severity = f"has the samples and text of {others}", SUSPECT
            yield _reporter(clip, origins[clip.id])("duplicate_audio", detail, severity)
    for speaker, members in _grouped(clips, lambda clip: clip.speaker).items():
        if len(members) < MIN_CLIPS:
            continue
        levels = np.array([metrics[clip.id].level for clip in members])
        usual = float(np.median(levels))
        for clip, level in zip(members, levels, strict=True):
            if abs(level - usual) > limits.max_level_deviation_db:
                limit = f"validation.max_level_deviation_db is {limits.max_level_deviation_db}"
                detail = f"level {level:.1f} dB; {usual:.1f} is usual for {speaker} ({limit})"
                yield _reporter(clip, origins[clip.id])("unusual_level", detail, SUSPECT)


def compare_speakers(
    clips: Sequence[Clip], origins: Mapping[str, str], embeddings: np.ndarray, limits: ValidationConfig
) -> tuple[list[Problem], dict[str, float]]:
    """Finds clips that are less similar to other clips of their speaker than to another speaker.

    Args:
        embeddings: (clips, width) speaker embeddings of unit length.

    Returns:
        Problems, and by clip id the cosine similarity to other clips of its speaker (without speakers of one clip).
    """
    speakers = _grouped(enumerate(clips), lambda item: item[1].speaker)
    names = [name for name, members in speakers.items() if len(members) > 1]
    sums = {name: embeddings[[index for index, _ in speakers[name]]].sum(axis=0) for name in names}
    centroids = np.stack([sums[name] / np.linalg.norm(sums[name]) for name in names]) if names else embeddings[:0]
    similarities: dict[str, float] = {}
    found = []
    for name in names:
        for index, clip in speakers[name]:
            rest = sums[name] - embeddings[index]
            own = float(embeddings[index] @ rest / np.linalg.norm(rest))
            similarities[clip.id] = round(own, 3)
            others = centroids @ embeddings[index]
            others[names.index(name)] = -1.0
            nearest = int(np.argmax(others))
            if own < limits.min_speaker_similarity and others[nearest] > own:
                detail = f"similarity {own:.2f} to other clips of {name}, {others[nearest]:.2f} to {names[nearest]}"
                found.append(_reporter(clip, origins[clip.id])("other_speaker", detail, SUSPECT))
    return found, similarities


def _repeated_texts(clips: Sequence[Clip], origins: Mapping[str, str]) -> Iterator[Problem]:
    """Yields a note for each repetition of a text by a speaker."""
    first: dict[tuple[str, str], str] = {}
    for clip in clips:
        key = (clip.speaker, clip.text.strip())
        if key in first and key[1]:
            detail = f"{clip.speaker} says the same text in {first[key]}"
            yield _reporter(clip, origins[clip.id])("repeated_text", detail, NOTE)
        first.setdefault(key, clip.id)


def _other_sample_rates(clips: Sequence[Clip], origins: Mapping[str, str]) -> Iterator[Problem]:
    """Yields a note for each clip that was recorded at another sample rate than most clips of its speaker."""
    rates: dict[str, Counter[int]] = defaultdict(Counter)
    for clip in clips:
        rates[clip.speaker][clip.source_sample_rate] += 1
    usual = {speaker: counts.most_common(1)[0][0] for speaker, counts in rates.items()}
    for clip in clips:
        rate = clip.source_sample_rate
        if rate != usual[clip.speaker]:
            detail = f"recorded at {rate} Hz (most clips: {usual[clip.speaker]}); resampled to {clip.sample_rate}"
            yield _reporter(clip, origins[clip.id])("other_sample_rate", detail, NOTE)


def _deviations(values: np.ndarray) -> np.ndarray:
    """Returns distances from the median in robust standard deviations; zeros for fewer than `MIN_CLIPS` values."""
    if len(values) < MIN_CLIPS:
        return np.zeros(len(values))
    center = np.median(values)
    spread = _MAD_TO_STD * np.median(np.abs(values - center))
    return (values - center) / spread if spread > 0 else np.zeros(len(values))


def _grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def _reporter(clip: Clip, origin: str) -> Callable[..., Problem]:
    """Returns a function that makes problems of a clip."""

    def problem(reason: str, detail: str, severity: str = BAD) -> Problem:
        return Problem(id=clip.id, file=origin, reason=reason, detail=detail, severity=severity)

    return problem
