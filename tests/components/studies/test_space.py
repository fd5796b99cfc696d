"""Search space: the default one, and settings that are named in `study.space`."""

import pytest

from components.studies.space import SpaceError, baseline, search_space, with_values
from model.config.resolution import batch_range, flatten, presets, resolve
from model.config.study import StudySettings

SIZES = sorted(presets()[0])


def settings(*space: str, **changes) -> StudySettings:
    overrides = {key.replace("__", "."): value for key, value in changes.items()}
    return StudySettings.of(resolve(overrides={"study.space": list(space), **overrides}).config)


@pytest.mark.parametrize("size", SIZES)
def test_by_default_loss_weights_and_batch_size_are_searched_in_the_safe_range_of_the_size(size):
    study = settings(model_size=size)
    space = search_space(study)
    assert set(space) == {"loss.mel_loss_weight", "training.batch_size"}
    low, high = batch_range(size)
    assert (space["training.batch_size"].low, space["training.batch_size"].high) == (low, high)
    assert str(space["loss.mel_loss_weight"]) == "2.5:5"
    assert set(baseline(study, space)) == set(space)
    latent = search_space(settings(model_size=size, model__use_variational_encoder=True))
    assert str(latent["loss.kl_loss_weight"]) == "0.5:2"


@pytest.mark.parametrize(
    ("entry", "shown"),
    [
        ("training.learning_rate", "0.000666667:0.006:log"),
        ("model.dropout", "0:0.4"),
        ("loss.guided_attention_loss_weight", "0.5:10:log"),
        ("model.dropout=0.1:0.2", "0.1:0.2"),
        ("training.weight_decay=1e-4:1e-2:log", "0.0001:0.01:log"),
        ("training.learning_rate_schedule", "constant|cosine|cosine_restarts"),
        ("training.learning_rate_schedule=constant|cosine", "constant|cosine"),
        ("loss.use_guided_attention", "False|True"),
        ("loss.kl_annealing_end", "0:1"),
        ("training.gradient_accumulation_steps=1:4", "1:4"),
    ],
)
def test_settings_are_searched_by_naming_them(entry, shown):
    study = settings(entry, model_size="xtiny")
    ((key, interval),) = search_space(study).items()
    assert str(interval) == shown
    assert set(baseline(study, {key: interval})) == {key} or not interval.contains(
        flatten(study.model_dump(mode="json"))[key]
    )
    for value in interval.ends():
        assert flatten(with_values(study, {key: value}).model_dump(mode="json"))[key] == value


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("loss.mel_loss_wait", "did you mean `loss.mel_loss_weight`"),
        ("loss", "unknown setting `loss`"),
        ("vocoder.type", "trials do not depend on it"),
        ("training.max_steps", "the budget of a trial determines it"),
        ("training.start_from", "neither a number nor a choice"),
        ("loss.duration_loss_weight", "has no range of its own; give one"),
        ("model.dropout=0.5:0.1", "with LOW below HIGH"),
        ("model.dropout=0:0.5:log", "LOW above 0"),
        ("model.dropout=0:0.5:lin", "write it as"),
        ("model.dropout=a:b", "is no range"),
        ("model.dropout=0.5", "is no range"),
        ("training.batch_size=1:2.5", "is no range"),
        ("model.dropout=0:2", "must not be 2.0"),
        ("loss.mel_loss_weight=1:100", "must not be 100.0"),
        ("training.learning_rate_schedule=cosine", "name at least two of"),
        ("training.learning_rate_schedule=cosine|square", "name at least two of"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_the_reason(entry, reason):
    with pytest.raises(SpaceError) as caught:
        search_space(settings(entry, model_size="xtiny"))
    assert reason in str(caught.value)


def test_the_bound_on_frames_follows_the_batch_size_unless_it_is_searched():
    """With the same bound, batches of long clips would be equal whatever their size."""
    study = settings(model_size="tiny")
    frames = study.training.max_batch_frames
    assert frames
    assert with_values(study, {"training.batch_size": 16}).training.max_batch_frames == 2 * frames
    assert with_values(study, {"model.dropout": 0.2}).training.max_batch_frames == frames
    both = {"training.batch_size": 16, "training.max_batch_frames": 3000}
    assert with_values(study, both).training.max_batch_frames == 3000
    unbounded = settings(model_size="tiny", training__max_batch_frames=0)
    assert with_values(unbounded, {"training.batch_size": 16}).training.max_batch_frames == 0


def test_a_setting_is_named_once():
    with pytest.raises(SpaceError, match="twice"):
        search_space(settings("model.dropout", "model.dropout=0:0.1"))
