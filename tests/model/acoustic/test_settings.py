"""No dead knobs: every setting of the model and of its losses changes the parameters, the loss or an alignment."""

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from model.config import resolve
from model.config.schema import LossConfig, ModelConfig
from model.training.losses import loss_terms, loss_weights, weighted_sum

STYLE = {"enable_gst": True}
MODEL_CHANGES = {
    "hidden_dim": 64,
    "num_heads": 4,
    "ffn_dim": 128,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "frames_per_step": 3,
    "kernel_size": 5,
    "dropout": 0.5,
    "predictor_dropout": 0.1,
    "predictors_read": "embedding",
    "predictor_input_dropout": 0.3,
    "aligner_dim": 24,
    "aligner_dropout": 0.1,
    "use_location_attention": True,
    "location_iterations": 1,
    "use_forward_attention": True,
    "forward_attention_mask": True,
    "duration_predictor_layers": 2,
    "duration_predictor_hidden_dim": 64,
    "prosody_predictor_hidden_dim": 64,
    "enable_prosody_prediction": False,
    "speaker_embedding_dim": 512,
    "use_pretrained_speaker_encoder": False,
    "speaker_encoder_dim": 24,
    "use_speaker_consistency_loss": True,
    "reference_encoder_dim": 24,
    "enable_gst": True,
    "gst_num_style_tokens": 12,
    "gst_num_heads": 2,
    "gst_style_token_dim": 64,
    "use_variational_encoder": True,
    "vae_latent_dim": 8,
}
BESIDE = {
    "location_iterations": {"use_location_attention": True},
    "forward_attention_mask": {"use_forward_attention": True},
    "speaker_encoder_dim": {"use_pretrained_speaker_encoder": False},
    "use_speaker_consistency_loss": {"use_pretrained_speaker_encoder": False},
    "reference_encoder_dim": STYLE,
    "gst_num_style_tokens": STYLE,
    "gst_num_heads": STYLE,
    "gst_style_token_dim": STYLE,
    "vae_latent_dim": {"use_variational_encoder": True},
}
"""Settings that act on a feature, and what switches it on."""
FIXED = {"use_duration_predictor"}  # one legal value


def test_every_model_setting_is_in_the_table():
    assert set(ModelConfig.model_fields) == set(MODEL_CHANGES) | FIXED


@pytest.mark.parametrize("key", MODEL_CHANGES)
def test_every_model_setting_changes_the_parameters_the_loss_or_an_alignment(make_model, batch, key):
    def measure(**settings):
        model = make_model(**settings).train()
        torch.manual_seed(5)
        loss = weighted_sum(loss_terms(model(batch), batch, LossConfig()), loss_weights(LossConfig(), 1.0))
        with torch.no_grad():
            soft = model.eval()(batch).alignment.log_soft.exp().square().sum()
        return sum(p.numel() for p in model.parameters()), float(loss.detach()), float(soft)

    beside = BESIDE.get(key, {})
    assert measure(**beside) != measure(**beside, **{key: MODEL_CHANGES[key]})


LOSS_CHANGES = {
    "mel_loss_weight": 3.0,
    "duration_loss_weight": 0.5,
    "pitch_loss_weight": 0.5,
    "energy_loss_weight": 0.5,
    "forward_sum_loss_weight": 2.0,
    "binarization_loss_weight": 0.5,
    "binarization_start": 0.1,
    "binarization_end": 0.6,
    "forward_sum_blank_logprob": -1e4,
    "use_guided_attention": False,
    "guided_attention_sigma": 0.4,
    "guided_attention_loss_weight": 2.0,
    "guided_attention_end": 0.6,
    "kl_loss_weight": 2.0,
    "kl_free_bits": 5.0,
    "kl_annealing_end": 0.9,
    "use_contrastive_speaker_loss": False,
    "contrastive_loss_weight": 1.0,
    "contrastive_loss_temperature": 0.2,
    "speaker_consistency_loss_weight": 2.0,
    "speaker_consistency_start": 0.5,
}
SEEN_ELSEWHERE = {"contrastive_clips_per_speaker", "allow_dangerous"}  # by the sampler, by the checklist
EVERYTHING = {
    "use_variational_encoder": True,
    "use_pretrained_speaker_encoder": False,
    "use_speaker_consistency_loss": True,
}


def test_every_loss_setting_is_in_the_table():
    assert set(LossConfig.model_fields) == set(LOSS_CHANGES) | SEEN_ELSEWHERE


@pytest.mark.parametrize("key", LOSS_CHANGES)
def test_every_loss_setting_changes_the_loss(make_model, make_batch, key):
    batch = replace(make_batch([(5, 20), (9, 41), (6, 30)]), speaker=torch.tensor([0, 1, 0]))
    output = make_model(**EVERYTHING)(batch)
    usual = {"use_guided_attention": True, "use_contrastive_speaker_loss": True, "guided_attention_end": 0.8}

    def measure(**settings):
        config = LossConfig(**{**usual, **settings})
        return float(weighted_sum(loss_terms(output, batch, config), loss_weights(config, 0.4)).detach())

    assert measure() != measure(**{key: LOSS_CHANGES[key]})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"forward_attention_mask": True}, "use_forward_attention"),
        ({"use_speaker_consistency_loss": True}, "use_pretrained_speaker_encoder"),
        ({"enable_gst": True, "gst_num_heads": 3}, "multiple of model.gst_num_heads"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_the_cure(settings, message):
    with pytest.raises(ValidationError, match=message):
        ModelConfig(**settings)


@pytest.mark.parametrize(
    ("size", "millions"), [("xtiny", 0.2), ("tiny", 3.8), ("small", 16), ("normal", 48), ("big", 110)]
)
def test_the_sizes_have_their_parameters(size, millions):
    from model.acoustic import AcousticModel, Inventory
    from model.text import NUM_STRESSES, NUM_SYMBOLS

    with torch.device("meta"):
        model = AcousticModel(
            resolve(None, None, {"model_size": size}).config.model,
            Inventory(NUM_SYMBOLS, NUM_STRESSES, 2, 256, 80, 0.0, 1.0),
        )
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.08)
