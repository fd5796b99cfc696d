"""`myxtts train` accepts the flags of the evaluation document, and they reach the trainer."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from model.config.schema import Config
from model.config.training import TrainSettings
from model.diagnosis import checklist
from model.training import trainer
from model.training.trainer import TrainingResult
from pipelines.cli.main import program

RECOMMENDED = (
    "--model-size normal --optimization-level enhanced --batch-size 32 --enable-gst --enable-static-shapes "
    "--gradient-clip-norm 0.5 --enable-evaluation --evaluation-interval 25"
)
OTHERS = (
    "--gst-num-style-tokens 12 --gst-style-token-dim 256 --buffer-size 100 --data-gpu 0 --model-gpu 1 "
    "--enable-memory-isolation --vocoder-type hifigan"
)


@pytest.fixture
def trained_with(small_features, tmp_path, monkeypatch):
    """Returns a function from flags to the settings that reach the checklist and the trainer."""
    checked: list[Config] = []
    received: list[TrainSettings] = []

    def check(config):
        checked.append(config)
        return []

    def train(settings, *_, **__):
        received.append(settings)
        return TrainingResult(steps=1, exported_step=1, voice=Path("voice"), metrics={})

    monkeypatch.setattr(checklist, "checklist", check)
    monkeypatch.setattr(trainer, "train", train)
    monkeypatch.setenv("MYXTTS_STATE", str(tmp_path))

    def run(flags: str) -> Config:
        run.result = CliRunner().invoke(
            program,
            ["train", "--features", str(small_features), "--no-track", *flags.split()],
            standalone_mode=False,
            catch_exceptions=False,
        )
        config = checked.pop()
        assert received.pop() == TrainSettings.of(config)
        return config

    return run


def test_the_recommended_command_works_as_written(trained_with):
    config = trained_with(RECOMMENDED)
    training = config.training
    assert (config.model_size, config.optimization_level) == ("normal", "enhanced")
    assert config.model.enable_gst
    assert (training.batch_size, training.evaluation_interval, training.gradient_clip_norm) == (32, 25, 0.5)
    assert training.enable_static_shapes
    assert training.enable_evaluation


def test_the_other_flags_of_the_document_are_there(trained_with):
    config = trained_with(f"{RECOMMENDED} {OTHERS}")
    assert (config.model.gst_num_style_tokens, config.model.gst_style_token_dim) == (12, 256)
    assert (config.training.buffer_size, config.training.data_gpu, config.training.model_gpu) == (100, 0, 1)
    assert config.training.enable_memory_isolation
    assert config.vocoder.type == "hifigan"


def test_what_can_be_switched_on_can_be_switched_off(trained_with):
    off = "--disable-gst --disable-static-shapes --disable-evaluation --disable-memory-isolation --no-mixed-precision"
    config = trained_with(f"{RECOMMENDED} {OTHERS} {off}")
    training = config.training
    switched = (config.model.enable_gst, training.enable_static_shapes, training.enable_evaluation)
    assert not any((*switched, training.enable_memory_isolation, training.use_mixed_precision))


def test_a_run_with_too_few_steps_left_for_a_profile_says_so(trained_with):
    trained_with("--profile-steps 7")
    assert trained_with.result.exit_code == 0
    assert "no profile: it needs 3 + 7 steps" in trained_with.result.stderr
    assert "1 steps; voice of step 1" in trained_with.result.stdout
