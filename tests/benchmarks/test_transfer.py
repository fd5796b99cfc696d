"""The benchmark of adaptation: subsets, intervals, settings of its trainings, and their recorded time."""

import json

import numpy as np
import pytest
from clips import make_clip

from benchmarks import transfer
from benchmarks.transfer import (
    PROCESSES,
    TEXTS,
    Experiment,
    Result,
    Scores,
    Training,
    average,
    differences,
    distortion,
    draw_clips,
    interval,
    main,
    train_once,
    training_settings,
)
from model.config.resolution import adaptation_preset
from model.corpus.manifest import Clip
from model.corpus.readers.generated import read_sentences
from model.features.store import FeatureStore
from model.training.trainer import TrainingResult


def clips(count: int, seconds: float = 3.0) -> list[Clip]:
    return [make_clip(f"clip-{number}", f"text {number}", seconds=seconds) for number in range(count)]


@pytest.mark.parametrize(("seconds", "count"), [(15, 5), (60, 20), (1, 1)])
def test_a_subset_is_as_long_as_asked_up_to_its_last_clip(seconds, count):
    listed = clips(40)
    drawn = draw_clips(listed, seconds, draw=0)
    assert len(drawn) == count
    assert [clip for clip in listed if clip in drawn] == drawn


def test_draws_differ_and_are_repeatable():
    draws = [draw_clips(clips(40), 15, draw) for draw in range(3)]
    assert draws[0] != draws[1] != draws[2]
    assert draw_clips(clips(40), 15, 1) == draws[1]


def test_a_subset_is_a_corpus_of_its_own(tmp_path, generated_corpus, generated_features):
    experiment = Experiment(folder=tmp_path, recordings=tmp_path, settings={}, base_settings={}, texts=[])
    whole = FeatureStore(generated_features)
    experiment.__dict__ |= {"corpus": (generated_corpus, whole), "_reader_settings": {}}
    subset = experiment._subset(10.0, 0)
    training = {whole.clips[position].id for position in whole.split("train")}
    assert {clip.id for clip in subset.clips} < training
    assert sum(clip.seconds for clip in subset.clips) >= 10.0
    assert subset.split("validation")


def test_an_interval_contains_the_mean_and_narrows_with_more_values():
    values = [0.0, 1.0, 0.5, 0.25] * 4
    mean, low, high = interval(values)
    assert mean == pytest.approx(0.4375)
    assert low < mean < high
    _, narrow_low, narrow_high = interval(values * 16)
    assert narrow_high - narrow_low < (high - low) / 2


def test_scores_are_averaged_and_compared_by_text():
    one = Scores(errors={"a": 0.2, "b": 0.4}, similarities={"a": 0.9, "b": 0.8}, distortions={"a": 4.0})
    two = Scores(errors={"b": 0.0, "a": 0.4}, similarities={"b": 0.6, "a": 0.7}, distortions={"a": 5.0})
    mean = average([one, two])
    assert mean.errors == pytest.approx({"a": 0.3, "b": 0.2})
    assert mean.similarities == pytest.approx({"a": 0.8, "b": 0.7})
    assert mean.distortions == {"a": 4.5}
    assert differences(one.errors, two.errors) == pytest.approx([-0.2, 0.4])


def test_the_distortion_does_not_depend_on_speed_and_grows_with_the_difference():
    generator = np.random.default_rng(0)
    recorded = generator.normal(size=(30, 80)).cumsum(axis=0)
    assert distortion(np.repeat(recorded, 2, axis=0), recorded) == pytest.approx(0.0, abs=1e-6)
    tilt = np.linspace(0, 1, 80)
    assert 0 < distortion(recorded + 0.1 * tilt, recorded) < distortion(recorded + 0.3 * tilt, recorded)


def test_one_process_has_the_batches_of_two():
    one = training_settings({"training.batch_size": 8, "training.max_batch_frames": 500})
    assert one.training.batch_size == 8 * PROCESSES
    assert one.training.max_batch_frames == 500 * PROCESSES


def test_an_adaptation_has_the_settings_of_its_amount_of_speech(tmp_path):
    config = training_settings({"model.hidden_dim": 64})
    described = {"config": config.model_dump()}
    (tmp_path / "voice.json").write_text(json.dumps(described))
    settings = training_settings({"training.freeze": ["aligner"]}, tmp_path, seconds=15.0)
    assert settings.model.hidden_dim == 64
    assert settings.training.warmup_steps == adaptation_preset(15.0)["warmup_steps"]
    assert settings.training.freeze == ("aligner",)
    assert settings.training.start_from == str(tmp_path)


def test_the_time_of_an_interrupted_training_counts_and_that_of_exporting_again_does_not(tmp_path, monkeypatch):
    clock = iter([10.0, 14.0, 20.0, 26.0])
    monkeypatch.setattr(transfer.time, "process_time", lambda: next(clock))
    result = TrainingResult(steps=3, exported_step=3, voice=tmp_path, metrics={})
    outcomes = iter([KeyboardInterrupt(), result, result])

    def train(*_, **__):
        outcome = next(outcomes)
        if isinstance(outcome, KeyboardInterrupt):
            raise outcome
        return outcome

    monkeypatch.setattr(transfer, "train", train)
    with pytest.raises(KeyboardInterrupt):
        train_once(tmp_path, None, None)
    finished = train_once(tmp_path, None, None)
    assert (finished.steps, finished.seconds) == (3, (4.0 + 6.0) / PROCESSES)
    assert train_once(tmp_path, None, None) == finished
    assert next(outcomes, None) is None  # the finished training was exported again


def test_the_further_texts_are_distinct_and_in_no_base_voice():
    texts = TEXTS.read_text("utf-8").splitlines()
    assert len(set(texts)) == len(texts) >= 150
    assert not set(texts) & set(read_sentences("", "en"))


def scores(error: float) -> Scores:
    return Scores(
        errors={"a": error, "b": error},
        similarities={"a": 1 - error, "b": 1 - error},
        distortions={"a": 10 * error, "b": 20 * error},
    )


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Replaces corpora, trainings and recognizer by scores; returns the list of settings of the experiments."""
    given = []

    def result(self, row, draws):
        given.append((row.name, draws, self.settings, self.base_settings, self.texts))
        training = Training(voice=tmp_path, steps=7, seconds=12.0)
        texts = scores(0.25) if self.texts else transfer.NO_SCORES
        return Result(row=row, trainings=[training] * draws, held_out=scores(0.5), texts=texts)

    monkeypatch.setattr(Experiment, "result", result)
    monkeypatch.setattr(Experiment, "base", tmp_path)
    monkeypatch.setattr(Experiment, "score", lambda self, voice: (scores(0.3), scores(0.2)))
    monkeypatch.setattr(Experiment, "recordings_scores", lambda self, vocoded: scores(0.2 if vocoded else 0.1))
    return given


def run(monkeypatch, tmp_path, *options: str) -> None:
    monkeypatch.setattr("sys.argv", ["transfer", "--folder", str(tmp_path), "--recordings", str(tmp_path), *options])
    main()


def test_the_table_has_the_references_the_base_and_the_chosen_rows(measured, monkeypatch, tmp_path, capsys):
    run(monkeypatch, tmp_path, "--rows", "seconds", "minute", "--draws", "2")
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split(" | ")[0].strip("| "): line for line in lines if line.startswith("| ")}
    assert {"recordings", "copy-synthesis", "none", "60 s, 2 draws", "15 s, 2 draws"} <= set(rows)
    assert rows["15 s, 2 draws"].startswith(
        "| 15 s, 2 draws | base | 7 | 12 | 0.500 [0.500, 0.500] | 0.300 [0.300, 0.300]"
    )
    assert "| 0.500 [0.500, 0.500] | 7.50 | 0.250 [0.250, 0.250] |" in rows["15 s, 2 draws"]
    assert rows["seconds - minute"] == "| seconds - minute | 0.000 [0.000, 0.000] | 0.000 [0.000, 0.000] |"
    assert len({line.count("|") for line in lines[: lines.index("")]}) == 1


def test_options_reach_the_trainings_and_their_base(measured, monkeypatch, tmp_path, capsys):
    options = ("--set", "training.max_steps=250", "training.freeze=[encoder]", "--base-set", "corpus.engine=pico")
    run(monkeypatch, tmp_path, "--rows", "seconds", "--draws", "1", "--texts", "0", *options)
    settings = {"training.max_steps": 250, "training.freeze": ["encoder"]}
    assert measured == [("seconds", 1, settings, {"corpus.engine": "pico"}, [])]
    assert "| - |" in capsys.readouterr().out
