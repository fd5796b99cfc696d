"""The checks of the `validate` stage: what is wrong with one clip, and what only shows beside the others."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from model.config.data import ValidationConfig
from model.corpus.manifest import Clip
from model.corpus.measure import Measures
from model.corpus.problems import BAD, NOTE, SUSPECT, Problem
from model.errors import TextError
from model.text.encode import encode
from model.text.identify import foreign_share, other_language, spoken_length

LEAST_CLIPS = 20
"""Fewer clips of a language or speaker have no usual value that another could be far from."""
_ROBUST = 1.4826
"""Standard deviations that the median distance from the median stands for."""

Finder = Callable[..., Problem]


def check_text(clip: Clip, origin: str, limits: ValidationConfig) -> Iterator[Problem]:
    """What the manifest alone tells of one clip."""
    problem = _finder(clip, origin)
    text = clip.text.strip()
    if clip.source_sample_rate < limits.min_sample_rate:
        detail = f"recorded at {clip.source_sample_rate} Hz; validation.min_sample_rate is {limits.min_sample_rate}"
        yield problem("low_sample_rate", detail)
    if clip.seconds > limits.max_seconds:
        detail = f"{clip.seconds:.2f} s; validation.max_seconds is {limits.max_seconds} (set aside, never cut)"
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
        detail = f"{foreign:.0%} of its letters are not of language {clip.language}"
        yield problem("wrong_script", f"{detail}; validation.max_foreign_share is {limits.max_foreign_share}", SUSPECT)
    elif other := other_language(text, clip.language):
        yield problem("other_language", f"reads like {other}, but the clip is said to be {clip.language}", SUSPECT)


def check_speech(clip: Clip, origin: str) -> Iterator[Problem]:
    """Whether a text can be spoken."""
    if not clip.text.strip():
        return
    problem = _finder(clip, origin)
    try:
        unknown = encode(clip.text, clip.language).unknown
    except TextError as error:
        yield problem("unspeakable_text", str(error))
        return
    if unknown:
        listed = ", ".join(f"{character!r} x{count}" for character, count in unknown.most_common())
        yield problem("unknown_characters", f"left out of the spoken text: {listed}", NOTE)


def check_sound(clip: Clip, origin: str, sound: Measures, limits: ValidationConfig) -> Iterator[Problem]:
    """What the recording of one clip tells."""
    problem = _finder(clip, origin)
    if sound.level < limits.min_level_db:
        detail = f"level {sound.level:.1f} dB full scale; validation.min_level_db is {limits.min_level_db}"
        yield problem("silent", detail)
    if sound.clipped > limits.max_clipped_share:
        detail = f"{sound.clipped:.2%} of the samples at full scale"
        yield problem("clipped", f"{detail}; validation.max_clipped_share is {limits.max_clipped_share}")
    if abs(sound.offset) > limits.max_offset:
        detail = f"mean of the samples {sound.offset:+.3f} of full scale; validation.max_offset is {limits.max_offset}"
        yield problem("offset", detail, SUSPECT)
    if sound.contrast < limits.min_contrast_db:
        detail = f"speech stands {sound.contrast:.1f} dB above the quietest frames ({sound.noise:.0f} dB full scale)"
        yield problem("noisy", f"{detail}; validation.min_contrast_db is {limits.min_contrast_db}", SUSPECT)
    for end, seconds in (("before", sound.lead), ("after", sound.trail)):
        if seconds > limits.max_edge_silence:
            detail = f"{seconds:.2f} s {end} the speech; validation.max_edge_silence is {limits.max_edge_silence}"
            yield problem("edge_silence", f"{detail} (trimmed when features are made)", NOTE)


def check_texts_together(
    clips: Sequence[Clip], origins: Mapping[str, str], limits: ValidationConfig
) -> Iterator[Problem]:
    """What the manifest tells of a clip beside the others: its rate, its text, its speed."""
    yield from _other_rates(clips, origins)
    yield from _repeated_texts(clips, origins)
    for language, members in _grouped(clips, "language").items():
        said = [clip for clip in members if clip.text.strip()]
        speeds = np.log([spoken_length(clip.text) / clip.seconds for clip in said] or [1.0])
        for clip, distance, speed in zip(said, _deviations(speeds), np.exp(speeds), strict=False):
            if abs(distance) > limits.max_speed_deviation:
                usual = float(np.exp(np.median(speeds)))
                detail = f"{speed:.1f} characters per second; {usual:.1f} are usual in {language} ({distance:+.1f} "
                detail += f"deviations, validation.max_speed_deviation is {limits.max_speed_deviation})"
                yield _finder(clip, origins[clip.id])("unusual_speed", detail, SUSPECT)


def check_sounds_together(
    clips: Sequence[Clip], origins: Mapping[str, str], sounds: Mapping[str, Measures], limits: ValidationConfig
) -> Iterator[Problem]:
    """What a recording tells beside the others: copies, and levels far from its speaker's."""
    copies: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        copies[sounds[clip.id].fingerprint].append(clip)
    for same in (members for members in copies.values() if len(members) > 1):
        texts = {clip.text for clip in same}
        for clip in same if len(texts) > 1 else same[1:]:
            others = ", ".join(other.id for other in same if other is not clip)
            if len(texts) > 1:
                yield _finder(clip, origins[clip.id])("duplicate_audio", f"the samples of {others}, with another text")
            else:
                yield _finder(clip, origins[clip.id])("duplicate_audio", f"the samples and text of {others}", SUSPECT)
    for speaker, members in _grouped(clips, "speaker").items():
        if len(members) < LEAST_CLIPS:
            continue
        levels = np.array([sounds[clip.id].level for clip in members])
        usual = float(np.median(levels))
        for clip, level in zip(members, levels, strict=True):
            if abs(level - usual) > limits.max_level_deviation_db:
                detail = f"level {level:.1f} dB; {speaker}'s is {usual:.1f} (validation.max_level_deviation_db is "
                yield _finder(clip, origins[clip.id])(
                    "unusual_level", f"{detail}{limits.max_level_deviation_db})", SUSPECT
                )


def check_speakers(
    clips: Sequence[Clip], origins: Mapping[str, str], vectors: np.ndarray, limits: ValidationConfig
) -> tuple[Iterator[Problem], dict[str, float]]:
    """Clips that sound less like their speaker's other clips than like another speaker's.

    Args:
        vectors: (clips, width) unit speaker vectors.

    Returns:
        Findings, and clip id -> cosine similarity to its speaker's other clips (speakers of one clip have none).
    """
    speakers = _grouped(list(enumerate(clips)), key=lambda item: item[1].speaker)
    names = [name for name, members in speakers.items() if len(members) > 1]
    sums = {name: vectors[[index for index, _ in speakers[name]]].sum(axis=0) for name in names}
    centroids = np.stack([sums[name] / np.linalg.norm(sums[name]) for name in names]) if names else vectors[:0]
    similarities: dict[str, float] = {}
    found = []
    for name in names:
        for index, clip in speakers[name]:
            rest = sums[name] - vectors[index]
            own = float(vectors[index] @ rest / np.linalg.norm(rest))
            similarities[clip.id] = round(own, 3)
            others = centroids @ vectors[index]
            others[names.index(name)] = -1.0
            nearest = int(np.argmax(others))
            if own < limits.min_speaker_similarity and others[nearest] > own:
                detail = f"similarity {own:.2f} to {name}'s other clips, {others[nearest]:.2f} to {names[nearest]}"
                found.append(_finder(clip, origins[clip.id])("other_speaker", detail, SUSPECT))
    return iter(found), similarities


def _repeated_texts(clips: Sequence[Clip], origins: Mapping[str, str]) -> Iterator[Problem]:
    """A note for each further time that a speaker says a text."""
    first: dict[tuple[str, str], str] = {}
    for clip in clips:
        key = (clip.speaker, clip.text.strip())
        if key in first and key[1]:
            yield _finder(clip, origins[clip.id])("repeated_text", f"{clip.speaker} says it in {first[key]} too", NOTE)
        first.setdefault(key, clip.id)


def _other_rates(clips: Sequence[Clip], origins: Mapping[str, str]) -> Iterator[Problem]:
    """A note for each clip that was recorded at another rate than most of its speaker's."""
    rates: dict[str, Counter] = defaultdict(Counter)
    for clip in clips:
        rates[clip.speaker][clip.source_sample_rate] += 1
    usual = {speaker: counts.most_common(1)[0][0] for speaker, counts in rates.items()}
    for clip in clips:
        rate = clip.source_sample_rate
        if rate != usual[clip.speaker]:
            detail = f"recorded at {rate} Hz (most clips: {usual[clip.speaker]}); resampled to {clip.sample_rate}"
            yield Problem(clip.id, origins[clip.id], "other_sample_rate", detail, NOTE)


def _deviations(values: np.ndarray) -> np.ndarray:
    """Distances from the median in robust standard deviations; none where there are too few to know what is usual."""
    if len(values) < LEAST_CLIPS:
        return np.zeros(len(values))
    centre = np.median(values)
    spread = _ROBUST * np.median(np.abs(values - centre))
    return (values - centre) / spread if spread > 0 else np.zeros(len(values))


def _grouped(items: Sequence, attribute: str = "", key: Callable | None = None) -> dict[str, list]:
    groups: dict[str, list] = defaultdict(list)
    for item in items:
        groups[key(item) if key else getattr(item, attribute)].append(item)
    return groups


def _finder(clip: Clip, origin: str) -> Finder:
    def problem(reason: str, detail: str, severity: str = BAD) -> Problem:
        return Problem(clip.id, origin, reason, detail, severity)

    return problem
