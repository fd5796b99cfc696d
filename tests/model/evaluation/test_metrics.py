"""Metrics: a perfect copy is best, noise is worse than speech on every one, and each has a value or a reason."""

import numpy as np
import pytest

from model.audio.dtw import dtw_path
from model.audio.mel import MelExtractor
from model.audio.pitch import track_pitch
from model.config.data import AudioConfig, FeaturesConfig
from model.evaluation.metric_table import METRIC_TABLE
from model.evaluation.metrics import (
    Metric,
    alignment_coverage,
    alignment_monotonicity,
    alignment_sharpness,
    boundary_error,
    duration_error,
    length_error,
    mean_of,
    mel_cepstral_distortion,
    mel_cepstrum,
    not_applicable,
    pitch_error,
    pitch_frame_error,
    pitch_range,
    similarity,
    voicing_error,
)
from model.speaker_encoder import Resemblyzer, SpeakerEncoder

AUDIO, FEATURES = AudioConfig(), FeaturesConfig()
EXTRACTOR = MelExtractor(AUDIO)


def compare(samples: np.ndarray, recorded: np.ndarray, encoder: SpeakerEncoder) -> dict[str, Metric]:
    mels = EXTRACTOR.numpy(samples), EXTRACTOR.numpy(recorded)
    f0 = track_pitch(samples, AUDIO, FEATURES), track_pitch(recorded, AUDIO, FEATURES)
    path = dtw_path(mel_cepstrum(mels[0]), mel_cepstrum(mels[1]))
    return {
        "mel_cepstral_distortion": mel_cepstral_distortion(*mels, path),
        "pitch_error": pitch_error(*f0, path),
        "voicing_error": voicing_error(*f0, path),
        "pitch_frame_error": pitch_frame_error(*f0, path),
        "speaker_similarity": similarity(*encoder.embed_many([samples, recorded], AUDIO.sample_rate)),
    }


@pytest.fixture(scope="module")
def encoder() -> SpeakerEncoder:
    return Resemblyzer.load()


def test_noise_scores_worse_than_speech_on_every_metric(voiced, encoder):
    recorded, speech = voiced(1.5, 150.0, seed=1), voiced(1.7, 143.0, seed=2)
    for samples in (recorded, speech):  # with pauses, so that voicing errors are possible
        samples[(np.arange(len(samples)) / len(samples) % 0.34) > 0.26] *= 0.001
    noise = (0.1 * np.random.default_rng(0).standard_normal(len(recorded))).astype(np.float32)
    of_speech, of_noise = compare(speech, recorded, encoder), compare(noise, recorded, encoder)
    for name, metric in of_speech.items():
        good, bad = metric.value, of_noise[name].value
        assert good is not None
        if name == "pitch_error" and bad is None:
            assert of_noise[name].reason
            continue
        assert METRIC_TABLE[name].worsening(bad - good) > 0, name


def test_a_perfect_copy_is_best_on_every_metric(voiced, encoder):
    recorded = voiced(1.0, 150.0)
    result = {name: metric.value for name, metric in compare(recorded, recorded.copy(), encoder).items()}
    assert result.pop("speaker_similarity") == pytest.approx(1.0, abs=1e-5)
    assert set(result.values()) == {0.0}


def test_distortion_is_in_decibels():
    frames = np.arange(80)
    flat = np.zeros((10, 80))
    tilted = np.log(10) / 20 * 6.0 * np.cos(np.pi * 3 * (frames + 0.5) / 80)[None].repeat(10, 0)  # +-6 dB: rms 4.24
    same = (np.arange(10), np.arange(10))
    assert mel_cepstral_distortion(tilted, flat, same).value == pytest.approx(6.0 / np.sqrt(2.0), rel=1e-6)


def test_a_change_of_level_is_no_distortion(voiced):
    recorded = voiced(1.0, 150.0)
    mels = EXTRACTOR.numpy(recorded), EXTRACTOR.numpy(0.5 * recorded)
    same = (np.arange(len(mels[0])),) * 2
    assert mel_cepstral_distortion(*mels, same).value < 0.3


def test_time_warping_undoes_a_change_of_speed():
    generator = np.random.default_rng(0)
    a = np.cumsum(generator.standard_normal((40, 6)), axis=0)
    b = a.repeat(generator.integers(1, 4, size=40), axis=0)
    rows, columns = dtw_path(b, a)
    assert np.array_equal(b[rows], a[columns])


def test_the_alignment_path_is_the_cheapest_and_complete():
    generator = np.random.default_rng(1)
    for _ in range(20):
        a, b = generator.standard_normal((4, 2)), generator.standard_normal((5, 2))
        rows, columns = dtw_path(a, b)
        assert (rows[0], columns[0], rows[-1], columns[-1]) == (0, 0, 3, 4)
        assert set(map(tuple, np.diff([rows, columns], axis=1).T)) <= {(0, 1), (1, 0), (1, 1)}
        cost = np.linalg.norm(a[rows] - b[columns], axis=1).sum()
        assert cost == pytest.approx(_cheapest_cost(a, b, 0, 0))


def _cheapest_cost(a, b, i, j):
    here = np.linalg.norm(a[i] - b[j])
    steps = [(i + di, j + dj) for di, dj in ((0, 1), (1, 0), (1, 1)) if i + di < len(a) and j + dj < len(b)]
    return here + (min(_cheapest_cost(a, b, *step) for step in steps) if steps else 0.0)


def test_pitch_errors_of_known_tracks():
    same = (np.arange(4), np.arange(4))
    recorded = np.array([100.0, 100.0, 0.0, 100.0])
    octave = np.array([200.0, 100.0, 0.0, 0.0])
    assert pitch_error(octave, recorded, same).value == pytest.approx(1200 / np.sqrt(2))
    assert voicing_error(octave, recorded, same).value == 0.25
    assert pitch_frame_error(octave, recorded, same).value == 0.5


def test_pitch_error_without_common_voiced_frames_does_not_apply_but_the_frame_error_does():
    same = (np.arange(3), np.arange(3))
    silent, spoken = np.zeros(3), np.full(3, 100.0)
    assert pitch_error(silent, spoken, same) == not_applicable("no frame is voiced in both")
    assert pitch_frame_error(silent, spoken, same).value == 1.0


def test_monotone_speech_has_no_pitch_range():
    octave = np.array([0.0, 100.0, 200.0, 0.0])
    assert pitch_range(octave).value == pytest.approx(6.0)
    assert pitch_range(np.full(5, 120.0)).value == 0.0
    assert pitch_range(np.zeros(5)).reason == "no frame is voiced"


def test_duration_and_length_errors():
    assert duration_error(np.array([1, 2, 3]), np.array([1, 4, 3])).value == pytest.approx(2 / 3)
    assert duration_error(np.array([1, 2]), np.array([1])).value is None
    assert length_error(90, 100).value == pytest.approx(0.1)


def test_alignments_that_failed_score_worse():
    diagonal = np.eye(10).repeat(4, axis=0)  # (40, 10)
    flat = np.full((40, 10), 0.1) + 1e-3 * np.random.default_rng(0).random((40, 10))
    assert alignment_sharpness(diagonal).value == 1.0 > alignment_sharpness(flat).value
    assert alignment_monotonicity(diagonal).value == 1.0 > alignment_monotonicity(flat).value
    assert alignment_coverage(np.full(10, 4)).value == 1.0
    assert alignment_coverage(np.array([1, 1, 1, 97])).value == 0.75
    assert alignment_coverage(np.array([0, 4, 4, 4])).value == 0.75


def test_boundaries_are_compared_where_the_true_times_are_known():
    durations = np.array([2, 3, 5])
    truth = np.array([[np.nan, np.nan], [0.3, 0.5], [0.5, 1.1]])
    assert boundary_error(durations, truth, 0.1).value == pytest.approx((1 + 0 + 0 + 1) / 4)
    assert boundary_error(durations, np.full((3, 2), np.nan), 0.1).value is None


def test_a_mean_is_of_the_metrics_that_apply():
    assert mean_of([Metric(1.0), not_applicable("x"), Metric(3.0)]).value == 2.0
    assert mean_of([not_applicable("x"), not_applicable("y")]) == not_applicable("x")
    assert mean_of([]).value is None
    assert mean_of([Metric(0.0)]).value == 0.0


def soft_path(*tokens: int) -> np.ndarray:
    """Returns a soft alignment (S, 9) with these most likely tokens."""
    soft = np.full((len(tokens), 9), 0.05)
    soft[np.arange(len(tokens)), tokens] = 0.6
    return soft


@pytest.mark.parametrize(
    ("tokens", "share"),
    [
        ((0, 0, 1, 1, 2), 1.0),
        ((0, 2, 4, 6, 8), 1.0),  # a token without a frame of its own may be skipped
        ((0, 3, 4, 5, 6), 0.75),  # two may not: a jump forward is an error
        ((0, 8, 8, 8, 8), 0.75),
        ((0, 1, 0, 1, 2), 0.75),
        ((4, 3, 2, 1, 0), 0.0),
    ],
)
def test_monotonicity_counts_steps_back_and_jumps_forward(tokens, share):
    assert alignment_monotonicity(soft_path(*tokens)).value == pytest.approx(share)


def test_a_gross_pitch_error_is_more_than_a_fifth_of_the_recorded_pitch():
    ours = np.array([119.0, 121.0, 81.0, 79.0, 100.0])
    recorded, same = np.full(5, 100.0), (np.arange(5),) * 2
    assert pitch_frame_error(ours, recorded, same).value == pytest.approx(2 / 5)
    # 122 for 100 is 22 % off, 100 for 122 is 18 %.
    assert pitch_frame_error(np.array([122.0]), np.array([100.0]), (np.zeros(1, int),) * 2).value == 1.0
    assert pitch_frame_error(np.array([100.0]), np.array([122.0]), (np.zeros(1, int),) * 2).value == 0.0


def test_pitch_errors_are_between_aligned_frames():
    recorded, path = np.array([100.0, 0.0, 200.0]), (np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]))
    ours = np.array([100.0, 200.0, 400.0])
    assert pitch_error(ours, recorded, path).value == pytest.approx(1200 * np.sqrt(1 / 3))
    assert voicing_error(ours, recorded, path).value == pytest.approx(1 / 4)
    assert pitch_frame_error(ours, recorded, path).value == pytest.approx(2 / 4)


def test_errors_of_opposite_sign_do_not_cancel_and_lengths_are_relative_to_the_recording():
    assert duration_error(np.array([1, 4, 3]), np.array([3, 2, 3])).value == pytest.approx(4 / 3)
    assert length_error(150, 100).value == length_error(50, 100).value == pytest.approx(0.5)
    assert length_error(100, 50).value == pytest.approx(1.0)


def test_the_longest_token_that_is_covered_has_40_frames():
    assert alignment_coverage(np.array([1, 40, 41, 0])).value == 0.5


def test_boundaries_are_starts_and_ends_counted_from_the_first_frame():
    durations = np.array([4, 1, 5])
    truth = 0.02 * np.array([[0, 4], [5, 5], [4, 13]])
    assert boundary_error(durations, truth, 0.02).value == pytest.approx((0 + 0 + 1 + 0 + 1 + 3) / 6)
