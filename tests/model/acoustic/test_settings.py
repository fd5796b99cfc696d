"""Every setting of the model and of its losses has its documented effect, in direction and size."""

from dataclasses import dataclass, field, replace

import pytest
import torch
from pydantic import ValidationError

from model.config.acoustic import ModelConfig
from model.config.resolution import resolve
from model.config.training import LossConfig
from model.training.losses import contrastive_speaker_loss, loss_terms, loss_weights, weighted_sum

STYLE = {"enable_gst": True}
MORE, LESS = 1, -1


@dataclass(frozen=True)
class Change:
    """Another value of a setting and its effect on the number of parameters.

    Attributes:
        value: Value other than that of the model which `make_model` builds.
        direction: `MORE` or `LESS` parameters; 0 keeps their number.
        modules: The modules in which the number changes; in all others it stays.
        with_settings: Settings of the feature that the setting belongs to.
    """

    value: object
    direction: int = 0
    modules: tuple[str, ...] = ()
    with_settings: dict = field(default_factory=dict)


PREDICTORS = ("pitch_predictor", "energy_predictor")
EMBEDDINGS = ("pitch_embedding", "energy_embedding")
MODEL_CHANGES = {
    "hidden_dim": Change(
        64,
        MORE,
        (
            *("symbol_embedding", "stress_embedding", "conditioning", "encoder", "decoder", "aligner"),
            *("duration_predictor", *PREDICTORS, *EMBEDDINGS, "position_in_token", "frame_merge", "mel_head"),
        ),
    ),
    "num_heads": Change(4),
    "ffn_dim": Change(128, MORE, ("encoder", "decoder")),
    "encoder_layers": Change(2, MORE, ("encoder",)),
    "decoder_layers": Change(2, MORE, ("decoder",)),
    "frames_per_step": Change(3, MORE, ("frame_merge", "mel_head")),
    "kernel_size": Change(5, MORE, ("encoder", "decoder")),
    "dropout": Change(0.5),
    "predictor_dropout": Change(0.05),
    "predictors_read": Change("embedding", MORE, ("predictor_condition",)),
    "predictor_input_dropout": Change(0.3),
    "aligner_dim": Change(24, MORE, ("aligner",)),
    "aligner_dropout": Change(0.1),
    "use_location_attention": Change(True, MORE, ("aligner",)),
    "location_iterations": Change(1, with_settings={"use_location_attention": True}),
    "use_forward_attention": Change(True, MORE, ("aligner",)),
    "forward_attention_mask": Change(True, with_settings={"use_forward_attention": True}),
    "duration_predictor_layers": Change(2, MORE, ("duration_predictor",)),
    "duration_predictor_hidden_dim": Change(64, MORE, ("duration_predictor",)),
    "prosody_predictor_hidden_dim": Change(64, MORE, PREDICTORS),
    "enable_prosody_prediction": Change(False, LESS, (*PREDICTORS, *EMBEDDINGS)),
    "speaker_embedding_dim": Change(512, MORE, ("conditioning",)),
    "use_pretrained_speaker_encoder": Change(False, LESS, ("conditioning",)),
    "speaker_encoder_dim": Change(24, LESS, ("conditioning",), {"use_pretrained_speaker_encoder": False}),
    "use_speaker_consistency_loss": Change(True, with_settings={"use_pretrained_speaker_encoder": False}),
    "reference_encoder_dim": Change(24, MORE, ("conditioning",), STYLE),
    "enable_gst": Change(True, MORE, ("conditioning",)),
    "gst_num_style_tokens": Change(12, MORE, ("conditioning",), STYLE),
    "gst_num_heads": Change(2, MORE, ("conditioning",), STYLE),  # the tokens are as wide as a head
    "gst_style_token_dim": Change(64, LESS, ("conditioning",), STYLE),
    "use_variational_encoder": Change(True, MORE, ("conditioning",)),
    "vae_latent_dim": Change(8, LESS, ("conditioning",), {"use_variational_encoder": True}),
}
FIXED = {"use_duration_predictor"}  # one legal value


def test_every_model_setting_is_in_the_table():
    assert set(ModelConfig.model_fields) == set(MODEL_CHANGES) | FIXED


def test_every_changed_value_differs_from_the_default(make_model):
    plain = make_model().config
    assert [key for key, change in MODEL_CHANGES.items() if getattr(plain, key) == change.value] == []


def sizes(model) -> dict[str, int]:
    """Returns the number of parameters of each module."""
    found: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = name.partition(".")[0]
        found[part] = found.get(part, 0) + parameter.numel()
    return found


@pytest.mark.parametrize("key", MODEL_CHANGES)
def test_every_model_setting_changes_the_size_of_its_modules_alone(make_model, key):
    change = MODEL_CHANGES[key]
    plain, changed = (sizes(make_model(**{**change.with_settings, **other})) for other in ({}, {key: change.value}))
    differences = {part: changed.get(part, 0) - plain.get(part, 0) for part in plain | changed}
    assert {part for part, difference in differences.items() if difference} == set(change.modules)
    assert all(difference * change.direction > 0 for difference in differences.values() if difference)


def spread(model, batch, value) -> float:
    """Returns the mean standard deviation of a value over passes in training mode."""
    model.train()
    with torch.no_grad():
        return float(torch.stack([value(model(batch)) for _ in range(12)]).std(0).mean())


def pitch(output):
    return output.predicted.pitch


def aligned(output):
    return output.alignment.log_soft.exp()


def mel(output):
    return output.mel


@pytest.mark.parametrize(
    ("key", "noisy", "still"),
    [
        ("dropout", mel, aligned),
        ("predictor_dropout", pitch, mel),  # the mel is taught with the recording's own pitch
        ("predictor_input_dropout", pitch, mel),
        ("aligner_dropout", aligned, pitch),
    ],
)
def test_more_dropout_makes_its_module_noisier_in_training(make_model, batch, key, noisy, still):
    others = {"dropout": 0.0, "predictor_dropout": 0.0, "aligner_dropout": 0.0}
    none, little, much = (spread(make_model(**{**others, key: share}), batch, noisy) for share in (0.0, 0.05, 0.6))
    assert none == 0
    assert 0 < little < 0.6 * much
    assert spread(make_model(**{**others, key: 0.6}), batch, still) == 0


def test_predictors_that_read_embeddings_have_a_limited_receptive_field(make_model, make_batch):
    """Two convolutions of three tokens have a receptive field of two neighbors on each side."""
    batch = make_batch([(9, 41)])
    for reads, sees in (("encoding", True), ("embedding", False)):
        model = make_model(predictors_read=reads)
        before = model(batch).predicted.pitch[0]
        changed = replace(batch, ids=batch.ids.clone())
        changed.ids[0, 0, 0] = batch.ids[0, 0, 0] % 18 + 1
        moved = (model(changed).predicted.pitch[0] - before).abs().detach()
        assert float(moved[0]) > 1e-4
        assert bool((moved[3:] > 1e-6).all()) == sees


def test_a_decoder_step_makes_frames_per_step_frames(make_model, batch):
    for frames_per_step, steps in ((1, 41), (3, 14)):
        model, seen = make_model(frames_per_step=frames_per_step), []
        model.decoder.register_forward_hook(lambda _, inputs, __, seen=seen: seen.append(inputs[0].shape[1]))
        assert model(batch).mel.shape[1] == 41
        assert seen == [steps]


def test_the_number_of_heads_changes_the_output_of_the_same_weights(make_model, batch):
    few, many = make_model(num_heads=2), make_model(num_heads=4)
    assert {block.attention.num_heads for block in many.encoder.blocks} == {4}
    for name, parameter in many.named_parameters():
        assert torch.equal(parameter, few.get_parameter(name))
    assert not torch.allclose(few(batch).mel, many(batch).mel, atol=1e-4)


def test_the_location_term_is_refined_location_iterations_times(make_model, batch):
    for iterations in (1, 3):
        model, calls = make_model(use_location_attention=True, location_iterations=iterations), []
        model.aligner.location.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        model.train()(batch)
        assert len(calls) == iterations
        model.eval()(batch)
        assert len(calls) == iterations + 2 * iterations


def test_forward_attention_advances_by_at_most_one_token_per_frame(make_model, batch):
    ahead = torch.arange(9)[None, None, :] > torch.arange(41)[None, :, None]  # a frame advances by one token at most
    plain, forward = (make_model(use_forward_attention=on)(batch).alignment.log_soft.exp() for on in (False, True))
    assert float((forward * ahead).sum()) == 0
    assert float((plain * ahead).sum()) > 0.1


def test_speaker_style_and_latent_have_the_configured_widths(make_model, batch):
    for width in (256, 512):
        assert make_model(speaker_embedding_dim=width)(batch).conditions.speaker.shape == (2, width)
    weights = make_model(enable_gst=True, gst_num_style_tokens=12, gst_num_heads=2)(batch).conditions.token_weights
    assert weights.shape == (2, 2, 12)
    latent = make_model(use_variational_encoder=True, vae_latent_dim=8)(batch).conditions
    assert latent.posterior.mean.shape == latent.prior.mean.shape == (2, 8)
    plain = make_model()(batch).conditions
    assert (plain.token_weights, plain.posterior, plain.prior) == (None, None, None)


def test_without_prosody_prediction_pitch_and_energy_have_no_effect(make_model, batch):
    with_prosody, without = (make_model(enable_prosody_prediction=on) for on in (True, False))
    for model, enabled in ((with_prosody, True), (without, False)):
        output = model(batch)
        assert bool(output.predicted.pitch.any()) == bool(output.predicted.energy.any()) == enabled
        higher = replace(batch, pitch=batch.pitch + 1.0 * batch.voiced)
        assert (not torch.equal(model(higher).mel, output.mel)) == enabled


def test_the_speaker_embedding_depends_on_the_vector_or_on_the_reference(make_model, batch):
    other_vector = replace(batch, speaker_vector=batch.speaker_vector.flip(0))
    other_reference = replace(batch, reference_mel=batch.reference_mel.flip(0))
    for pretrained in (True, False):
        model = make_model(use_pretrained_speaker_encoder=pretrained)
        speaker = model(batch).conditions.speaker
        assert (not torch.equal(model(other_vector).conditions.speaker, speaker)) == pretrained
        assert torch.equal(model(other_reference).conditions.speaker, speaker) == pretrained


def test_the_consistency_loss_follows_its_switch(make_model, batch):
    for on in (False, True):
        model = make_model(use_pretrained_speaker_encoder=False, use_speaker_consistency_loss=on)
        assert ("speaker_consistency" in loss_terms(model(batch), batch, LossConfig())) == on


PROGRESS = 0.4
"""Fraction of training completed, at which every schedule below is in progress."""
LOSSES = {"use_guided_attention": True, "use_contrastive_speaker_loss": True, "guided_attention_end": 0.8}
WEIGHT_CHANGES = {
    "mel_loss_weight": (3.0, ["mel"], 1.0),
    "duration_loss_weight": (0.5, ["duration", "length"], 1.0),
    "pitch_loss_weight": (0.5, ["pitch"], 1.0),
    "energy_loss_weight": (0.5, ["energy"], 1.0),
    "forward_sum_loss_weight": (2.0, ["forward_sum"], 1.0),
    "binarization_loss_weight": (0.5, ["binarization"], 0.5),
    "guided_attention_loss_weight": (2.0, ["guided_attention"], 0.5),
    "kl_loss_weight": (1.7, ["kl"], 1.0),
    "contrastive_loss_weight": (0.9, ["contrastive_speaker"], 1.0),
    "speaker_consistency_loss_weight": (2.0, ["speaker_consistency"], 1.0),
}
"""Weight -> another value, its loss terms, and the scheduled fraction of it at `PROGRESS`."""
SCHEDULE_CHANGES = {
    "binarization_start": (0.2, "binarization", 2 / 3),
    "binarization_end": (0.7, "binarization", 0.25),
    "guided_attention_end": (0.5, "guided_attention", 0.2),
    "kl_annealing_end": (0.8, "kl", 0.5),
    "speaker_consistency_start": (0.5, "speaker_consistency", 0.0),
}
"""Bound of a schedule -> another value, the loss term, and the fraction of its weight at `PROGRESS`."""
TERM_CHANGES = {
    "forward_sum_blank_logprob": (-1e4, "forward_sum", MORE),  # without skipped frames the text is less likely
    "guided_attention_sigma": (0.4, "guided_attention", LESS),  # a wider free band
    "kl_free_bits": (5.0, "kl", MORE),
}
"""Setting of a loss term -> another value, the term, and the direction of its change on the random batch."""
TERM_SWITCHES = {
    "use_guided_attention": "guided_attention",
    "use_contrastive_speaker_loss": "contrastive_speaker",
}
TESTED_ELSEWHERE = {
    "contrastive_clips_per_speaker",  # by the sampler
    "allow_dangerous",  # by the checklist
    "contrastive_loss_temperature",  # below
}
EVERYTHING = {
    "use_variational_encoder": True,
    "use_pretrained_speaker_encoder": False,
    "use_speaker_consistency_loss": True,
}


def test_every_loss_setting_is_in_a_table():
    tables = (WEIGHT_CHANGES, SCHEDULE_CHANGES, TERM_CHANGES, TERM_SWITCHES)
    assert sorted(LossConfig.model_fields) == sorted([*(key for table in tables for key in table), *TESTED_ELSEWHERE])


@pytest.fixture
def losses(make_model, make_batch):
    """Returns a function from loss settings to (weighted sum, terms, weights) at `PROGRESS` of one model output."""
    batch = replace(make_batch([(5, 20), (9, 41), (6, 30)]), speaker=torch.tensor([0, 1, 0]))
    with torch.no_grad():
        output = make_model(**EVERYTHING)(batch)

        def compute(**settings):
            config = LossConfig(**{**LOSSES, **settings})
            terms, weights = loss_terms(output, batch, config), loss_weights(config, PROGRESS)
            return float(weighted_sum(terms, weights)), {name: float(term) for name, term in terms.items()}, weights

        yield compute


@pytest.mark.parametrize("key", WEIGHT_CHANGES)
def test_every_loss_weight_adds_its_difference_times_its_terms(losses, key):
    value, names, share = WEIGHT_CHANGES[key]
    before, terms, _ = losses()
    after, same, _ = losses(**{key: value})
    difference = (value - LossConfig.model_fields[key].default) * share
    assert same == terms
    assert min(terms[name] for name in names) > 0
    assert abs(difference) > 0.04
    assert after - before == pytest.approx(difference * sum(terms[name] for name in names), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("key", SCHEDULE_CHANGES)
def test_every_bound_of_a_schedule_changes_the_weight_of_its_term(losses, key):
    value, name, share = SCHEDULE_CHANGES[key]
    before, terms, weights = losses()
    after, _, moved = losses(**{key: value})
    full = getattr(LossConfig(), f"{name.removesuffix('_speaker')}_loss_weight")
    assert moved[name] == pytest.approx(share * full)
    assert {other for other in weights if weights[other] != moved[other]} == {name}
    assert after - before == pytest.approx((moved[name] - weights[name]) * terms[name], rel=1e-3)


@pytest.mark.parametrize("key", TERM_CHANGES)
def test_every_setting_of_a_term_changes_it_in_its_direction(losses, key):
    value, name, direction = TERM_CHANGES[key]
    (_, before, weights), (_, after, same) = losses(), losses(**{key: value})
    assert (after[name] - before[name]) * direction > 0.01 * before[name]
    assert {other for other in before if before[other] != after[other]} == {name}
    assert weights == same


@pytest.mark.parametrize("key", TERM_SWITCHES)
def test_a_term_that_is_switched_off_leaves_the_sum_by_its_weight(losses, key):
    name = TERM_SWITCHES[key]
    (before, terms, weights), (after, rest, _) = losses(), losses(**{key: False})
    assert terms.keys() - rest.keys() == {name}
    assert before - after == pytest.approx(weights[name] * terms[name], rel=1e-3)


def test_the_contrastive_loss_uses_its_configured_temperature(make_model, make_batch):
    batch = replace(make_batch([(5, 20), (9, 41), (6, 30)]), speaker=torch.tensor([0, 1, 0]))
    output = make_model(**EVERYTHING)(batch)
    found = []
    for temperature in (0.03, 0.4):
        config = LossConfig(**LOSSES, contrastive_loss_temperature=temperature)
        found.append(float(loss_terms(output, batch, config)["contrastive_speaker"]))
        speakers = (output.conditions.speaker, batch.speaker, batch.reference_clip)
        assert found[-1] == float(contrastive_speaker_loss(*speakers, temperature))
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"forward_attention_mask": True}, "use_forward_attention"),
        ({"enable_gst": True, "gst_num_heads": 3}, "multiple of model.gst_num_heads"),
    ],
)
def test_contradicting_settings_are_errors_that_name_the_fix(settings, message):
    with pytest.raises(ValidationError, match=message):
        ModelConfig(**settings)


@pytest.mark.parametrize(
    ("size", "millions"), [("xtiny", 0.2), ("tiny", 3.8), ("small", 16), ("normal", 48), ("big", 110)]
)
def test_the_model_sizes_have_their_documented_parameter_counts(size, millions):
    from model.acoustic.model import AcousticModel, ModelDimensions
    from model.text.symbols import NUM_STRESSES, NUM_SYMBOLS

    with torch.device("meta"):
        model = AcousticModel(
            resolve(None, None, {"model_size": size}).config.model,
            ModelDimensions(
                num_symbols=NUM_SYMBOLS,
                num_stresses=NUM_STRESSES,
                num_languages=2,
                speaker_vector_dim=256,
                n_mels=80,
                mel_mean=0.0,
                mel_std=1.0,
            ),
        )
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.08)
