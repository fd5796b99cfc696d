"""Every setting of training has the effect that its description states, in direction and size."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.config.resolution import resolve
from model.config.schema import Config
from model.threads import computes_in_bfloat16
from model.training import trainer
from model.training.step import Step
from model.training.trainer import train

STEPS = 12


@dataclass
class Run:
    """A finished run and records of its steps.

    Attributes:
        config, folder: Settings and folder of the run.
        steps: Result of each step.
        clips: Clips of each batch.
        shapes: (clips, tokens, frames) of each batch, padding included.
        norms, largest: Of the clipped gradient of each step: its joint norm, and its largest element.
        initial: Weights before the first step.
    """

    config: Config
    folder: Path
    steps: list[Step] = field(default_factory=list)
    clips: list[list[str]] = field(default_factory=list)
    shapes: list[tuple[int, int, int]] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    largest: list[float] = field(default_factory=list)
    initial: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def rates(self) -> list[float]:
        return [step.learning_rate for step in self.steps]

    @property
    def padded_frames(self) -> list[int]:
        return [clips * frames for clips, _, frames in self.shapes]

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        """Returns the `model` or `ema` tensors of the last checkpoint."""
        return load_file(self.folder / f"checkpoints/step-{len(self.steps):08d}" / f"{name}.safetensors")


def traced(config: Config, features: Path, folder: Path) -> Run:
    """Trains and records every step."""
    run, original = Run(config, folder), trainer.take_step

    def watching(state, computation, batch, *arguments):
        run.initial = run.initial or {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
        step = original(state, computation, batch, *arguments)
        gradient = torch.cat([p.grad.flatten() for p in state.model.parameters() if p.grad is not None])
        run.steps.append(step)
        run.clips.append(batch.clip_ids)
        run.shapes.append((*batch.ids.shape[:2], batch.mel.shape[1]))
        run.norms.append(float(gradient.norm()))
        run.largest.append(float(gradient.abs().max()))
        return step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "take_step", watching)
        train(config, features, folder)
    return run


@pytest.fixture(scope="module")
def plain(tmp_path_factory, small_settings, generated_features) -> Run:
    settings = {**small_settings, "training.max_steps": STEPS, "training.enable_evaluation": False}
    return traced(resolve(None, None, settings).config, generated_features, tmp_path_factory.mktemp("plain"))


def smaller_batches(plain: Run, changed: Run) -> None:
    assert max(map(len, plain.clips)) == 4
    assert max(map(len, changed.clips)) == 3


def bounded_frames(plain: Run, changed: Run) -> None:
    frames = changed.padded_frames
    bounded = [size <= 400 or len(clips) == 1 for size, clips in zip(frames, changed.clips, strict=True)]
    assert all(bounded)
    assert max(plain.padded_frames) > 400


def half_the_rate(plain: Run, changed: Run) -> None:
    assert changed.rates == pytest.approx([rate / 2 for rate in plain.rates])


def slower_aligner(plain: Run, changed: Run) -> None:
    assert 0.4 < distance(changed, "aligner.") / distance(plain, "aligner.") < 0.75
    assert distance(changed, "decoder.") == pytest.approx(distance(plain, "decoder."), rel=0.1)
    assert changed.rates == plain.rates


def distance(run: Run, prefix: str) -> float:
    """Returns the L2 distance of a module's parameters from their initial values."""
    moved = {name: tensor - run.initial[name] for name, tensor in run.weights("model").items()}
    return float(sum(tensor.square().sum() for name, tensor in moved.items() if name.startswith(prefix))) ** 0.5


def flat_rate(plain: Run, changed: Run) -> None:
    assert changed.rates[5:] == [changed.config.training.learning_rate] * (STEPS - 5)
    assert plain.rates[-1] < 0.5 * plain.rates[5]


def higher_floor(plain: Run, changed: Run) -> None:
    peak = changed.config.training.learning_rate
    assert all(rate >= peak / 2 for rate in changed.rates[5:])
    falls = zip(plain.rates[5:], changed.rates[5:], strict=True)
    floor = plain.config.training.final_learning_rate_ratio
    assert all((peak - slow) * (1 - floor) == pytest.approx((peak - fast) / 2, abs=1e-9) for fast, slow in falls)


def shorter_warm_up(plain: Run, changed: Run) -> None:
    peak = plain.config.training.learning_rate
    assert changed.rates[:2] == pytest.approx([peak / 2, peak])
    assert plain.rates[:5] == pytest.approx([peak * step / 5 for step in range(1, 6)])


def smaller_weights(plain: Run, changed: Run) -> None:
    before, after = (run.weights("model") for run in (plain, changed))
    ratios = [
        float(after[name].norm() / before[name].norm())
        for name, tensor in before.items()
        if tensor.dim() > 1 and "embedding" not in name and float(tensor.norm()) > 1
    ]
    assert len(ratios) > 20
    factor = 1.0
    for rate in plain.rates:
        factor *= 1 - (0.5 - plain.config.training.weight_decay) * rate
    assert sum(ratios) / len(ratios) == pytest.approx(factor, abs=0.003)


def bounded_norm(plain: Run, changed: Run) -> None:
    assert max(changed.norms) <= 0.01 * 1.001
    assert all(step.clipping.clipped_norm for step in changed.steps)
    assert max(plain.norms) > 0.3


def bounded_elements(plain: Run, changed: Run) -> None:
    assert max(changed.largest) <= 0.001 * 1.001
    assert min(step.clipping.clipped_elements for step in changed.steps) > 0
    assert max(plain.largest) > 0.01


def raw_weights_exported(plain: Run, changed: Run) -> None:
    for run, same in ((plain, False), (changed, True)):
        voice, raw = load_file(run.folder / "voice" / "model.safetensors"), run.weights("model")
        assert all(torch.equal(voice[name], raw[name]) for name in raw) == same


def float32(plain: Run, changed: Run) -> None:
    """Checks that the first loss is close to that of bfloat16, but not equal."""
    one, other = plain.steps[0].loss.total, changed.steps[0].loss.total
    assert one != other
    assert one == pytest.approx(other, rel=0.02)


def fewer_steps(plain: Run, changed: Run) -> None:
    assert (len(plain.steps), len(changed.steps)) == (STEPS, 9)
    assert changed.rates[-1] < plain.rates[8]  # the schedule ends with the run


def few_shapes(plain: Run, changed: Run) -> None:
    padded, own = ({(tokens, frames) for _, tokens, frames in run.shapes} for run in (changed, plain))
    assert len(padded) <= 3 < len(own)


BESIDE = {"enable_static_shapes": {"num_shape_buckets": 3}}
"""Setting -> other settings that are changed along with it."""
EFFECTS: dict[str, tuple[object, Callable[[Run, Run], None]]] = {
    "batch_size": (3, smaller_batches),
    "max_batch_frames": (400, bounded_frames),
    "learning_rate": (1e-3, half_the_rate),
    "aligner_learning_rate_scale": (1.0, slower_aligner),
    "learning_rate_schedule": ("constant", flat_rate),
    "final_learning_rate_ratio": (0.5, higher_floor),
    "warmup_steps": (2, shorter_warm_up),
    "weight_decay": (0.5, smaller_weights),
    "gradient_clip_norm": (0.01, bounded_norm),
    "gradient_clip_value": (0.001, bounded_elements),
    "ema_decay": (0.0, raw_weights_exported),
    "use_mixed_precision": (False, float32),
    "max_steps": (9, fewer_steps),
    "enable_static_shapes": (True, few_shapes),
}
"""Setting -> another value, and a check of its effect on a run."""
SEEN_ELSEWHERE = {  # setting -> the test that sees its effect
    "start_from_sha256": "test_weights_other_than_those_recorded_are_refused",
    "start_from": "test_the_report_says_what_was_copied_and_the_voice_names_its_ancestors",
    "keep_languages": "test_languages_that_the_corpus_lacks_are_kept_or_dropped",
    "keep_speakers": "test_speakers_of_the_base_are_listed_while_they_sound_like_themselves",
    "rehearsal": "test_rehearsal_mixes_the_features_of_the_base_in",
    "freeze": "test_frozen_parts_keep_the_weights_of_the_base",
    "base_interpolation": "test_exported_text_parts_lie_between_the_trained_weights_and_those_of_the_base",
    "evaluation_interval": "test_best_last_and_top_k_are_kept_and_the_wanted_one_is_exported",
    "checkpoint_interval": "test_best_last_and_top_k_are_kept_and_the_wanted_one_is_exported",
    "exported_checkpoint": "test_best_last_and_top_k_are_kept_and_the_wanted_one_is_exported",
    "keep_top_k": "test_best_last_and_top_k_are_kept_and_the_wanted_one_is_exported",
    "variance_restoration": "test_a_voice_restores_the_variance_that_its_mels_lack",
    "enable_evaluation": "test_without_evaluation_the_last_weights_become_the_voice",
    "log_interval": "test_training_lowers_the_loss_and_reports_everything",
    "num_threads": "test_training_lowers_the_loss_and_reports_everything",
    "max_skipped_steps": "test_bad_steps_in_a_row_lead_to_rollbacks_and_finally_stop_the_run",
    "max_rollbacks": "test_bad_steps_in_a_row_lead_to_rollbacks_and_finally_stop_the_run",
    "rollback_rate_factor": "test_after_a_rollback_the_learning_rate_is_lower_and_the_run_finishes",
    "divergence_factor": "test_a_loss_far_above_the_best_median_has_diverged",
    "gradient_accumulation_steps": "test_accumulated_gradients_equal_those_of_the_whole_batch",
    "enable_gradient_checkpointing": "test_checkpointed_gradients_equal_plain_ones_and_store_less",
    "mixed_precision": "test_float16_trains_with_a_scaler_that_is_in_the_checkpoint",
    "enable_adaptive_loss_weights": "test_adaptive_weights_act_in_a_run",
    "adaptive_weight_update_interval": "test_weights_move_at_their_interval_only",
    "enable_plateau_breaker": "test_a_plateau_that_a_lower_rate_does_not_end_raises_the_rate_once",
    "plateau_patience": "test_a_plateau_that_a_lower_rate_does_not_end_raises_the_rate_once",
    "plateau_threshold": "test_a_falling_loss_is_no_plateau",
    "plateau_rate_boost": "test_a_plateau_that_a_lower_rate_does_not_end_raises_the_rate_once",
    "plateau_boost_steps": "test_a_plateau_that_a_lower_rate_does_not_end_raises_the_rate_once",
    "buffer_size": "test_batches_loaded_ahead_are_the_same_batches",
    "num_workers": "test_batches_loaded_ahead_are_the_same_batches",
    "num_shape_buckets": "test_every_batch_has_one_of_few_shapes",
    "enable_compile": "test_compiling_changes_no_number_and_stops_after_the_shapes",
    "device": "test_a_missing_gpu_is_named",
    "model_gpu": "test_a_missing_gpu_is_named",
    "data_gpu": "test_a_missing_gpu_is_named",
    "enable_memory_isolation": "test_a_missing_gpu_is_named",
    "durations": "test_a_converged_aligner_is_frozen_while_the_rest_learns_across_a_restart",
}


def test_every_training_setting_is_in_the_table(config):
    assert set(type(config().training).model_fields) == set(EFFECTS) | set(SEEN_ELSEWHERE)
    tests = "".join(path.read_text("utf-8") for path in Path(__file__).parents[1].rglob("test_*.py"))
    assert [name for name in SEEN_ELSEWHERE.values() if f"def {name}(" not in tests] == []


def test_no_value_here_is_the_plain_one(config):
    assert [key for key, (value, _) in EFFECTS.items() if getattr(config().training, key) == value] == []


@pytest.mark.parametrize("key", EFFECTS)
def test_every_training_setting_does_what_it_says(tmp_path, config, generated_features, plain, key):
    if key == "use_mixed_precision" and not computes_in_bfloat16():
        pytest.skip("this processor does not compute in bfloat16, so the setting keeps float32")
    value, effect = EFFECTS[key]
    settings = config(**{"max_steps": STEPS, "enable_evaluation": False, key: value, **BESIDE.get(key, {})})
    effect(plain, traced(settings, generated_features, tmp_path))
