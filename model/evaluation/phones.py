"""A small phone recognizer that is trained on minutes of recordings of any language, within seconds.

A hidden Markov model of phones without context (Rabiner 1989, "A tutorial on hidden Markov models"): every phone has
two states in sequence, every state one Gaussian, and all Gaussians the same covariance, so that the scores of a frame
are linear in it (linear discriminant analysis, Fisher 1936). The parameters follow from Viterbi training (segmental
k-means, Juang and Rabiner 1990): align the recordings with their texts, estimate, align again. Speech is recognized by
the best path through all pairs of phones (a bigram).

It makes many errors on recordings too. What counts is the difference between two voices, or between a voice and the
recordings; `benchmarks/phone_error.py` measures how well it agrees with the character error rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.fft import dct
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array

from model.acoustic.alignment import best_path
from model.text.symbols import BOS, EOS, MARKS, SYMBOL_IDS, TONES, WORD_BOUNDARY

COEFFICIENTS = 20
"""Cepstral coefficients of a frame, with the 0th, the level."""
OFFSETS = (-6, -3, -1, 0, 1, 3, 6)
"""Frames around a frame whose coefficients describe it."""
STATES = 2
"""States of a phone, which therefore lasts two frames at least."""
ROUNDS = 6
"""Rounds of training, each an estimate and an alignment; the first starts from phones of equal length."""
SHRINKAGE = 0.1
"""Weight of the diagonal in the covariance."""
SCALE = 0.4
"""Weight of the log-likelihoods against the bigram: neighboring frames are alike, so their product is too certain."""
STAY = 0.8
"""Probability of another frame in the same state."""
UNSEEN_PAIRS = 0.5
"""Added to the count of every pair of phones."""

PAUSES = frozenset(SYMBOL_IDS[symbol] for symbol in (BOS, EOS, *MARKS))
"""Symbols that are modelled as phones but not counted: a text does not say how long its pauses are."""
UNMODELLED = np.array([SYMBOL_IDS[symbol] for symbol in (WORD_BOUNDARY, *TONES.values())])
"""Symbols without speech of their own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PhoneRecognizer:
    """A trained recognizer.

    Attributes:
        symbols: Symbol of each phone (P,), ascending.
        log_pairs: Log-probability (P, P) of a phone, second axis, after another.
        weights, offsets: Linear scores of the states, (F, 2 P) and (2 P,): log-likelihoods, up to a constant of each
            frame. The states of a phone follow each other.
    """

    symbols: np.ndarray
    log_pairs: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray

    @classmethod
    def train(cls, clips: Sequence[tuple[np.ndarray, np.ndarray]]) -> PhoneRecognizer:
        """Trains a recognizer; equal clips give equal recognizers.

        Args:
            clips: Log-mel (S, M) and symbols (T,) of each recording. Recordings with fewer than two frames per symbol
                are left out.

        Raises:
            ValueError: no recording is long enough for its text.
        """
        texts = [text[~np.isin(text, UNMODELLED)] for _, text in clips]
        pairs = [(mel, text) for (mel, _), text in zip(clips, texts, strict=True) if len(mel) >= STATES * len(text) > 0]
        if not pairs:
            raise ValueError("no recording is long enough for its text")
        frames = [_describe(mel) for mel, _ in pairs]
        symbols, numbers = np.unique(np.concatenate([text for _, text in pairs]), return_inverse=True)
        spoken = np.split(numbers, np.cumsum([len(text) for _, text in pairs])[:-1])
        log_pairs = _bigram(spoken, len(symbols))
        paths = [(text[:, None] * STATES + np.arange(STATES)).ravel() for text in spoken]
        labels = [path[np.arange(len(own)) * len(path) // len(own)] for path, own in zip(paths, frames, strict=True)]
        every = np.concatenate(frames)
        scatter = (every.T @ every).astype(np.float64)
        for _ in range(ROUNDS):
            weights, offsets = _estimate(every, scatter, np.concatenate(labels), STATES * len(symbols))
            recognizer = cls(symbols=symbols, log_pairs=log_pairs, weights=weights, offsets=offsets)
            labels = [recognizer._align(own, path) for own, path in zip(frames, paths, strict=True)]
        return recognizer

    def recognize(self, mel: np.ndarray) -> list[int]:
        """Returns the symbols of the most probable phones of a log-mel (S, M), pauses included."""
        scores = self._scores(_describe(mel)).reshape(len(mel), -1, STATES)  # (S, P, 2)
        stay, leave = np.log(STAY), np.log(1.0 - STAY)
        first, last = scores[0, :, 0], np.full(len(self.symbols), -np.inf)
        before = np.zeros((len(mel), len(self.symbols)), int)  # phone before a first state; -1: it stayed
        entered = np.zeros((len(mel), len(self.symbols)), bool)  # whether a last state was entered from the first
        for frame in range(1, len(mel)):
            enter = last[:, None] + self.log_pairs
            origins = enter.argmax(axis=0)
            new, kept = enter.max(axis=0) + leave, first + stay
            before[frame] = np.where(new > kept, origins, -1)
            entered[frame] = first + leave > last + stay
            last = np.maximum(first + leave, last + stay) + scores[frame, :, 1]
            first = np.maximum(new, kept) + scores[frame, :, 0]
        return [int(self.symbols[phone]) for phone in _trace_back(int(last.argmax()), before, entered)]

    def errors(self, mel: np.ndarray, text: np.ndarray) -> float | None:
        """Returns the phone error rate: edits per phone of the text; 0 is perfect, insertions can exceed 1.

        Args:
            mel: Log-mel (S, M) of speech.
            text: Symbols (T,) of its text.

        Returns:
            The rate, or None if the text has no phone.
        """
        import jiwer

        spoken, recognized = phones_of(text), phones_of(self.recognize(mel))
        return float(jiwer.wer(" ".join(map(str, spoken)), " ".join(map(str, recognized)))) if spoken else None

    def _scores(self, frames: np.ndarray) -> np.ndarray:
        """Returns the weighted log-likelihoods (S, 2 P) of descriptions of frames (S, F)."""
        scores: np.ndarray = SCALE * (frames @ self.weights + self.offsets)
        return scores

    def _align(self, frames: np.ndarray, path: np.ndarray) -> np.ndarray:
        """Returns the state of each frame (S,) on the best path through the states of a text (2 T,)."""
        scores = torch.from_numpy(self._scores(frames)[:, path]).float()[None]
        durations = best_path(scores, torch.tensor([len(path)]), torch.tensor([len(frames)]))
        return np.repeat(path, durations[0].numpy())


def phones_of(text: Sequence[int] | np.ndarray) -> list[int]:
    """Returns the symbols of a text that are phones."""
    return [int(symbol) for symbol in text if symbol not in PAUSES and symbol not in UNMODELLED]


def _describe(mel: np.ndarray) -> np.ndarray:
    """Returns the cepstra (S, F) of the frames of a log-mel (S, M) and of their neighbors, less the clip's mean."""
    cepstra = dct(mel.astype(np.float64), type=2, axis=1, norm="ortho")[:, :COEFFICIENTS]
    cepstra -= cepstra.mean(axis=0)
    rows = np.arange(len(mel))
    return np.concatenate(
        [cepstra[np.clip(rows + offset, 0, len(mel) - 1)] for offset in OFFSETS], axis=1, dtype=np.float32
    )


def _bigram(texts: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Returns the log-probability (P, P) of each phone after each other one, from texts of phone numbers."""
    pairs = np.full((count, count), UNSEEN_PAIRS)
    for text in texts:
        np.add.at(pairs, (text[:-1], text[1:]), 1.0)
    log_pairs: np.ndarray = np.log(pairs / pairs.sum(axis=1, keepdims=True))
    return log_pairs


def _estimate(frames: np.ndarray, scatter: np.ndarray, labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weights (F, C) and offsets (C,) of the linear scores of `count` states.

    Args:
        frames: Descriptions (N, F) of all frames.
        scatter: Their sum of outer products (F, F).
        labels: State of each frame (N,).
        count: Number of states C.
    """
    sizes = np.bincount(labels, minlength=count).astype(np.float64)
    members = csr_array((np.ones(len(labels), frames.dtype), (labels, np.arange(len(labels)))), (count, len(labels)))
    means = (members @ frames).astype(np.float64) / np.maximum(sizes, 1.0)[:, None]
    covariance = (scatter - (means.T * sizes) @ means) / len(frames)
    covariance += SHRINKAGE * (np.diag(np.diag(covariance)) - covariance)
    weights = cho_solve(cho_factor(covariance), means.T)
    priors = np.log(np.maximum(sizes, 1.0) / len(frames))
    return weights, priors - 0.5 * (means.T * weights).sum(axis=0)


def _trace_back(phone: int, before: np.ndarray, entered: np.ndarray) -> list[int]:
    """Returns the phones of the best path, which ends in the last state of a phone.

    Args:
        phone: Last phone.
        before: Phone before a first state (S, P), where it was entered in that frame; -1 where it was not.
        entered: Whether a last state was entered in a frame (S, P).
    """
    phones, in_last = [phone], True
    for frame in range(len(before) - 1, 0, -1):
        if in_last:
            in_last = not entered[frame, phone]
        elif before[frame, phone] >= 0:
            phone, in_last = int(before[frame, phone]), True
            phones.append(phone)
    return phones[::-1]
