"""Blind listening test: a page that plays the speech of anonymous voices, and the analysis of the answers.

The page names sounds by random tokens. A separate key file maps tokens to voices, so that neither the page nor the
results identify a voice. There are two kinds of trials: preference (A/B of two voices) and quality (after MUSHRA, ITU-R
BS.1534: every voice, the hidden recording and an anchor, low-passed at 3.5 kHz, are rated from 0 to 100 against the
open recording).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import butter, sosfiltfilt

from model.audio.io import read_recording
from model.errors import MyXTTSError
from model.evaluation.statistics import Estimate, estimate_mean
from model.files import write_json, write_text
from model.pages import audio_url, render

RECORDING, ANCHOR = "recording", "anchor"
ANCHOR_HZ = 3500.0
PREFERENCE, QUALITY = "preference", "quality"
SAME = "same"
FORMAT = 1
MIN_REFERENCE_SCORE, MAX_MISSED_REFERENCES = 90.0, 0.15
"""A listener who rates the hidden recording below 90 in more than 15 % of the trials is left out (BS.1534)."""


class ListeningError(MyXTTSError):
    """A listening test cannot be made, or results cannot be read; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Answers of listeners.

    Attributes:
        listeners: Number of listeners.
        left_out: Listeners whose quality ratings do not count, since they missed the hidden recording.
        preferences: Number of answers to A/B trials.
        preferred: (voice, other voice) -> share of the answers for the voice, half of those for `same` included.
        strengths: Voice -> Bradley-Terry strength: difference of two is the log odds of being preferred. Mean 0.
        scores: Voice, `recording` and `anchor` -> quality from 0 to 100.
    """

    listeners: int
    left_out: tuple[str, ...]
    preferences: int
    preferred: dict[tuple[str, str], Estimate]
    strengths: dict[str, float]
    scores: dict[str, Estimate]


def write_test(page: Path, title: str, systems: Mapping[str, Path], most: int = 12) -> Path:
    """Writes a self-contained page, and its key beside it (`<page>.key.json`).

    Args:
        page: The HTML file.
        title: Shown to listeners; must not identify a voice.
        systems: Voice -> folder of its evaluation (`model.evaluation.evaluate`), all of the same sentences.
        most: Largest number of sentences; their order is that of the evaluation's hashes.

    Returns:
        The key's file.

    Raises:
        ListeningError: the evaluations have no recorded sentence in common.
    """
    evaluations = {name: json.loads((folder / "metrics.json").read_text("utf-8")) for name, folder in systems.items()}
    clips = {
        name: {clip["id"]: clip for clip in found["clips"] if clip["audio"]} for name, found in evaluations.items()
    }
    common = set.intersection(*(set(found) for found in clips.values()))
    first = next(iter(clips))
    chosen = sorted(common, key=lambda clip: (clips[first][clip]["sentence"], clip))[:most]
    if not chosen:
        raise ListeningError(f"{', '.join(map(str, systems.values()))}: no recorded unseen sentence in common")
    identity = hashlib.sha256(json.dumps([sorted(systems), chosen, _digests(systems, clips, chosen)]).encode())
    test = identity.hexdigest()[:12]
    key: dict[str, str] = {}
    trials: dict[str, list[dict[str, Any]]] = {PREFERENCE: [], QUALITY: []}
    for clip in chosen:
        sounds, rate = _sounds(systems, {name: found[clip] for name, found in clips.items()})
        tokens = {name: hashlib.sha256(f"{test} {clip} {name}".encode()).hexdigest()[:8] for name in sounds}
        key.update({token: name for name, token in tokens.items()})
        urls = {tokens[name]: audio_url(samples, rate) for name, samples in sounds.items()}
        said = {key: clips[first][clip][key] for key in ("text", "language")}
        for pair in combinations(systems, 2):
            trials[PREFERENCE].append(
                {"kind": PREFERENCE, **said, "sounds": {tokens[n]: urls[tokens[n]] for n in pair}}
            )
        trials[QUALITY].append({"kind": QUALITY, **said, "reference": urls[tokens[RECORDING]], "sounds": urls})
    shown = [*trials[PREFERENCE], *trials[QUALITY]]
    content = {"format": FORMAT, "test": test, "trials": shown}
    template = Path(__file__).with_name("listening.html")
    write_text(page, render(template, title=title, test=test, content=content, count=len(shown)))
    return write_json(key_of(page), {"format": FORMAT, "test": test, "systems": list(systems), "key": key})


def key_of(page: Path) -> Path:
    """Returns the file of a page's key."""
    return page.with_name(page.name + ".key.json")


def read_results(path: Path, key: Mapping[str, Any]) -> dict[str, Any]:
    """Reads the results of one listener.

    Raises:
        ListeningError: the file is damaged, or belongs to another test.
    """
    try:
        return check_results(json.loads(path.read_text("utf-8")), key)
    except (OSError, ValueError) as error:
        raise ListeningError(f"{path}: not the results of a listening test: {error}") from error


def check_results(results: Any, key: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the results of one listener after a check of their form.

    Raises:
        ListeningError: they belong to another test, or an answer is not one that the page gives.
    """
    if not isinstance(results, dict) or results.get("format") != FORMAT or not isinstance(results.get("answers"), list):
        raise ListeningError("not the results of a listening test")
    if results.get("test") != key["test"]:
        raise ListeningError(f"these are results of the test {results.get('test')}, but this is {key['test']}")
    if not isinstance(results.get("listener"), str) or not results["listener"].strip():
        raise ListeningError("the results lack the name of the listener")
    for answer in results["answers"]:
        shown = answer.get("sounds", ())
        scores = answer.get("scores", {})
        if answer.get("kind") == PREFERENCE:
            right = len(shown) == 2 and answer.get("choice") in (*shown, SAME)
        else:
            right = set(shown) == set(scores) and all(
                isinstance(score, int | float) and 0 <= score <= 100 for score in scores.values()
            )
        if not right or not shown or not set(shown) <= key["key"].keys():
            raise ListeningError(f"{answer} is not an answer to a trial of this test")
    return results


def summarize(results: Sequence[Mapping[str, Any]], key: Mapping[str, Any]) -> Summary:
    """Analyzes the results of all listeners.

    Args:
        results: One per listener, as `read_results` returns them; of several by one listener the last one counts.
        key: The key of the test.
    """
    names: Mapping[str, str] = key["key"]
    by_listener = {result["listener"]: result["answers"] for result in results}
    wins: dict[tuple[str, str], list[float]] = {}
    scores: dict[str, list[float]] = {}
    left_out = []
    for listener, answers in by_listener.items():
        quality = [
            {names[token]: float(score) for token, score in answer["scores"].items()}
            for answer in answers
            if answer["kind"] == QUALITY
        ]
        missed = [rated[RECORDING] < MIN_REFERENCE_SCORE for rated in quality]
        if missed and np.mean(missed) > MAX_MISSED_REFERENCES:
            left_out.append(listener)
        else:
            for rated in quality:
                for name, score in rated.items():
                    scores.setdefault(name, []).append(score)
        for answer in answers:
            if answer["kind"] == PREFERENCE:
                one, other = sorted(names[token] for token in answer["sounds"])
                chosen = 0.5 if answer["choice"] == SAME else float(names[answer["choice"]] == one)
                wins.setdefault((one, other), []).append(chosen)
    preferred = {pair: estimate_mean(values) for pair, values in wins.items()}
    preferred |= {
        (other, one): estimate_mean([1.0 - value for value in values]) for (one, other), values in wins.items()
    }
    return Summary(
        listeners=len(by_listener),
        left_out=tuple(left_out),
        preferences=sum(map(len, wins.values())),
        preferred=preferred,
        strengths=bradley_terry({pair: (sum(values), len(values)) for pair, values in wins.items()}),
        scores={name: estimate_mean(values) for name, values in sorted(scores.items())},
    )


def bradley_terry(wins: Mapping[tuple[str, str], tuple[float, int]], rounds: int = 1000) -> dict[str, float]:
    """Returns the log strengths of systems that explain their wins best (Hunter 2004); their mean is 0.

    Half a win and half a defeat are added to each pair, so that a system that always wins has a finite strength.

    Args:
        wins: (system, other system) -> wins of the first, and number of comparisons.
        rounds: Iterations.
    """
    names = sorted({name for pair in wins for name in pair})
    if not names:
        return {}
    won = np.zeros((len(names), len(names)))
    for (one, other), (count, total) in wins.items():
        i, j = names.index(one), names.index(other)
        won[i, j] += count + 0.5
        won[j, i] += total - count + 0.5
    games = won + won.T
    strength = np.ones(len(names))
    for _ in range(rounds):
        strength = won.sum(axis=1) / (games / (strength[:, None] + strength[None, :])).sum(axis=1)
        strength /= math.exp(np.log(strength).mean())
    return {name: float(value) for name, value in zip(names, np.log(strength), strict=True)}


def low_pass(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Returns the anchor: samples (N,) without frequencies above 3.5 kHz."""
    if sample_rate <= 2 * ANCHOR_HZ:
        return samples
    filtered = sosfiltfilt(butter(8, ANCHOR_HZ, fs=sample_rate, output="sos"), samples)
    return np.asarray(filtered, np.float32)


def _sounds(systems: Mapping[str, Path], clips: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], int]:
    """Returns the sounds of one sentence by system, with the recording and the anchor, and their sample rate."""
    first = next(iter(systems))
    recording = read_recording(systems[first] / clips[first]["audio"][RECORDING])
    sounds = {
        name: read_recording(folder / clips[name]["audio"]["synthesised"]).samples for name, folder in systems.items()
    }
    sounds |= {RECORDING: recording.samples, ANCHOR: low_pass(recording.samples, recording.sample_rate)}
    loudest = max(float(np.abs(samples).max(initial=0.0)) for samples in sounds.values())
    return {name: samples / max(1.0, loudest) for name, samples in sounds.items()}, recording.sample_rate


def _digests(systems: Mapping[str, Path], clips: Mapping[str, Any], chosen: Sequence[str]) -> list[str]:
    """Returns the hashes of the sounds, so that a test of other sounds has another identity."""
    paths = [folder / clips[name][clip]["audio"]["synthesised"] for name, folder in systems.items() for clip in chosen]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
