"""Style tokens, latent, the model's own speaker encoder, and the contrastive and consistency losses."""

import math
from dataclasses import replace

import pytest
import torch

from model.acoustic.conditioning import Reference, Style, StyleError
from model.acoustic.encoders import (
    Gaussian,
    MelSpeakerEncoder,
    ReferenceEncoder,
    StyleTokens,
    VariationalEncoder,
    kl_divergence,
)
from model.config.training import LossConfig
from model.training.losses import contrastive_speaker_loss, loss_terms


def speak(model, batch, style, vector=None):
    vector = batch.speaker_vector if vector is None else vector
    return model.synthesize(batch.ids, batch.token_lengths, vector, batch.language, style)


def difference(one, other):
    return 1.0 if one.mel.shape != other.mel.shape else float((one.mel - other.mel).abs().max())


def one_token(token, heads=4, tokens=10):
    weights = torch.zeros(1, heads, tokens)
    weights[:, :, token] = 1.0
    return Style(token_weights=weights)


def test_style_tokens_give_different_speech(make_model, make_batch):
    model, batch = make_model(enable_gst=True), make_batch([(6, 30)])
    spoken = [speak(model, batch, one_token(token)) for token in range(10)]
    assert min(difference(a, b) for i, a in enumerate(spoken) for b in spoken[:i]) > 1e-3


def test_a_mixture_of_style_tokens_lies_between_them(make_model, batch):
    conditioning = make_model(enable_gst=True).conditioning
    text, speaker, language = torch.randn(1, 32), torch.randn(1, 256), torch.tensor([1])

    def condition(style: Style) -> torch.Tensor:
        return conditioning(text, speaker, language, style).vector.detach()

    one, other = (condition(one_token(token)) for token in (2, 7))
    mixed = Style(token_weights=0.25 * one_token(2).token_weights + 0.75 * one_token(7).token_weights)
    torch.testing.assert_close(condition(mixed), 0.25 * one + 0.75 * other)
    assert float((one - other).abs().max()) > 0.01


def test_the_latent_moves_the_condition_in_proportion(make_model):
    conditioning = make_model(use_variational_encoder=True).conditioning
    text, speaker, language = torch.randn(1, 32), torch.randn(1, 256), torch.tensor([1])
    direction = torch.randn(1, 16)
    none, once, thrice = (
        conditioning(text, speaker, language, Style(latent=factor * direction)).vector.detach() for factor in (0, 1, 3)
    )
    torch.testing.assert_close(thrice - none, 3 * (once - none), atol=1e-5, rtol=1e-4)
    assert float((once - none).abs().max()) > 0.01


def test_without_a_reference_the_latent_deviates_from_the_prior_by_its_temperature(make_model):
    conditioning = make_model(use_variational_encoder=True).conditioning
    text, speaker, language = torch.randn(1, 32), torch.randn(1, 256), torch.tensor([1])

    def spoken(style: Style) -> torch.Tensor:
        return conditioning(text, speaker, language, style).vector.detach()

    prior = conditioning(text, speaker, language, Style()).prior
    torch.testing.assert_close(spoken(Style()), spoken(Style(latent=prior.mean)))
    small, large = (
        torch.stack([spoken(Style(temperature=temperature)) for _ in range(400)]).std(0).mean()
        for temperature in (0.4, 1.2)
    )
    assert float(large / small) == pytest.approx(3, rel=0.1)


def test_token_weights_of_a_reference_give_the_speech_of_the_reference(make_model, batch):
    model = make_model(enable_gst=True)
    reference = Reference(batch.reference_mel, batch.reference_lengths)
    weights = model(batch).conditions.token_weights
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 4))
    from_reference, given = speak(model, batch, Style(reference)), speak(model, batch, Style(token_weights=weights))
    torch.testing.assert_close(from_reference.mel, given.mel)


def test_the_style_is_bounded_by_its_tokens():
    tokens = StyleTokens(reference_dim=8, tokens=5, heads=2, dim=16)
    style = tokens.mix(tokens(1000 * torch.randn(3, 8)))
    extreme = max(float(tokens.mix(w).detach().abs().max()) for w in torch.eye(5)[:, None, None, :].expand(5, 1, 2, 5))
    assert float(style.detach().abs().max()) <= extreme + 1e-5


def test_the_latent_changes_the_speech_and_its_samples_differ(make_model, make_batch):
    model, batch = make_model(use_variational_encoder=True), make_batch([(6, 30)])
    plain = speak(model, batch, Style())
    assert difference(plain, speak(model, batch, Style(latent=torch.full((1, 16), 2.0)))) > 1e-3
    samples = [speak(model, batch, Style(temperature=1.0)) for _ in range(3)]
    assert difference(samples[0], samples[1]) > 1e-4
    assert difference(plain, speak(model, batch, Style())) == 0


def test_the_latent_is_sampled_in_training_with_the_requested_spread(make_model, batch):
    model = make_model(use_variational_encoder=True, dropout=0.0, predictor_dropout=0.0, aligner_dropout=0.0).train()
    assert not torch.equal(model(batch).mel, model(batch).mel)
    wide = Gaussian(torch.full((4000, 1), 3.0), torch.full((4000, 1), 2.0).log())
    for temperature in (0.0, 0.5, 2.0):
        drawn = wide.sample(temperature)
        assert float(drawn.mean()) == pytest.approx(3.0, abs=0.2)
        assert float(drawn.std()) == pytest.approx(temperature * 2**0.5, rel=0.1)


def test_the_divergence_is_zero_for_equal_distributions_and_equals_torchs_otherwise():
    one = Gaussian(torch.randn(3, 4), torch.randn(3, 4))
    other = Gaussian(torch.randn(3, 4), torch.randn(3, 4))
    assert float(kl_divergence(one, one).abs().max()) < 1e-6
    normal = torch.distributions.Normal
    wanted = torch.distributions.kl_divergence(
        normal(one.mean, (one.log_variance / 2).exp()), normal(other.mean, (other.log_variance / 2).exp())
    )
    torch.testing.assert_close(kl_divergence(one, other), wanted)


def test_free_bits_have_no_gradient(make_model, batch):
    model = make_model(use_variational_encoder=True).train()
    generous = LossConfig(kl_free_bits=50.0)
    term = loss_terms(model(batch), batch, generous)["kl"]
    assert float(term.detach()) == 50.0
    assert torch.autograd.grad(term, model.conditioning.variational.posterior.weight)[0].abs().sum() == 0


def test_free_bits_apply_to_each_dimension(make_model, batch):
    output = make_model(use_variational_encoder=True)(batch)
    zero = torch.zeros(2, 2)
    posterior = Gaussian(torch.tensor([[0.0, 2.0], [0.0, 2.0]]), zero)  # 0 and 2 nats
    output.conditions = replace(output.conditions, posterior=posterior, prior=Gaussian(zero, zero))
    assert float(loss_terms(output, batch, LossConfig(kl_free_bits=0.5))["kl"]) == pytest.approx((0.5 + 2) / 2)


def test_the_prior_of_the_latent_depends_on_text_and_speaker(make_model, make_batch):
    model, batch = make_model(use_variational_encoder=True), make_batch([(6, 30)])
    before = model(batch).conditions.prior.mean
    batch.ids[0, 0, 0] = batch.ids[0, 0, 0] % 18 + 1
    after_text = model(batch).conditions.prior.mean
    batch.speaker_vector = -batch.speaker_vector
    assert not torch.equal(before, after_text)
    assert not torch.equal(after_text, model(batch).conditions.prior.mean)


def test_missing_and_mismatched_styles_are_errors_that_name_what_is_needed(make_model, batch):
    with pytest.raises(StyleError, match="give a reference clip or style token weights"):
        speak(make_model(enable_gst=True), batch, Style())
    with pytest.raises(StyleError, match="4 heads x 10 tokens"):
        speak(make_model(enable_gst=True), batch, one_token(0, heads=2))
    with pytest.raises(StyleError, match="latent of 3 values"):
        speak(make_model(use_variational_encoder=True), batch, Style(latent=torch.zeros(2, 3)))
    with pytest.raises(StyleError, match="its own speaker encoder"):
        speak(make_model(use_pretrained_speaker_encoder=False, speaker_embedding_dim=512), batch, Style())


def test_the_models_own_encoder_embeds_the_reference(make_model, batch):
    model = make_model(use_pretrained_speaker_encoder=False)
    speaker = model(batch).conditions.speaker
    torch.testing.assert_close(speaker.norm(dim=1), torch.ones(2))
    assert not torch.allclose(speaker[0], speaker[1], atol=1e-3)
    batch.reference_mel = batch.reference_mel.flip(0)
    assert difference(model.synthesize_batch(batch), speak(model, batch, Style(), speaker)) > 1e-4


def test_a_clip_without_a_reference_has_a_zero_speaker_embedding(make_model, batch):
    model = make_model(use_pretrained_speaker_encoder=False, enable_gst=True, use_variational_encoder=True)
    batch.reference_lengths[0] = 0
    output = model(batch)
    assert float(output.conditions.speaker[0].abs().sum()) == 0
    assert bool(output.mel.isfinite().all())


def test_the_encoding_of_one_short_recording_is_that_of_training(make_model, batch):
    model = make_model(use_pretrained_speaker_encoder=False, enable_gst=True, use_variational_encoder=True)
    conditions = model(batch).conditions
    encoding = model.conditioning.encode_reference(Reference.from_recordings([batch.reference_mel[0, :190].numpy()]))
    torch.testing.assert_close(encoding.speaker[0], conditions.speaker[0])
    torch.testing.assert_close(encoding.token_weights[0], conditions.token_weights[0])
    torch.testing.assert_close(encoding.latent[0], conditions.posterior.mean[0])


def test_an_encoding_weights_pieces_by_their_length(make_model):
    conditioning = make_model(enable_gst=True, use_variational_encoder=True).conditioning
    long, short = torch.randn(256, 80).numpy(), torch.randn(32, 80).numpy() + 3
    both, *each = (
        conditioning.encode_reference(Reference.from_recordings(pieces)) for pieces in ([long, short], [long], [short])
    )
    for attribute in ("token_weights", "latent"):
        one, other = (getattr(encoding, attribute) for encoding in each)
        torch.testing.assert_close(getattr(both, attribute), (8 * one + other) / 9)
        assert not torch.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("encoder", [MelSpeakerEncoder(80, 16, 8), ReferenceEncoder(80, 16)])
def test_padding_of_a_reference_has_no_effect(encoder):
    mel, lengths = torch.randn(1, 256, 80), torch.tensor([130])
    with torch.no_grad():
        torch.testing.assert_close(encoder(mel, lengths), encoder(mel[:, :130], lengths))
        assert not encoder(mel, torch.tensor([0])).any()


def test_the_deviation_of_the_latent_is_bounded():
    encoder = VariationalEncoder(4, 4, 3)
    for given in (encoder.encode_posterior(1e4 * torch.randn(8, 4)), encoder.encode_prior(1e4 * torch.randn(8, 4))):
        assert float(given.log_variance.detach().abs().max()) <= 4


def test_long_recordings_are_cut_into_pieces_of_the_trained_length():
    recordings = [torch.randn(600, 80).numpy(), torch.randn(100, 80).numpy()]
    assert Reference.from_recordings(recordings).lengths.tolist() == [256, 256, 88, 100]


def test_the_consistency_loss_trains_the_decoder_and_not_the_speaker_encoder(make_model, batch):
    model = make_model(use_pretrained_speaker_encoder=False, use_speaker_consistency_loss=True)
    term = loss_terms(model(batch), batch, LossConfig())["speaker_consistency"]
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = dict(zip(names, torch.autograd.grad(term, parameters, allow_unused=True), strict=True))
    assert float(gradients["mel_head.weight"].abs().sum()) > 0
    output = model(batch)
    output.mel = output.mel.detach()
    assert not loss_terms(output, batch, LossConfig())["speaker_consistency"].requires_grad


def test_the_consistency_loss_is_the_cosine_distance_to_each_clips_speaker(make_model, batch):
    output = make_model(use_pretrained_speaker_encoder=False, use_speaker_consistency_loss=True)(batch)
    speaker = output.conditions.speaker
    for embedding, wanted in ((speaker, 0.0), (speaker.flip(0), 1 - float(speaker[0] @ speaker[1])), (-speaker, 2.0)):
        output.embed_synthesis = lambda *_, embedding=embedding: embedding
        term = loss_terms(output, batch, LossConfig())["speaker_consistency"]
        assert float(term.detach()) == pytest.approx(wanted, abs=1e-5)


def embeddings(*angles):
    angles = torch.tensor(angles)
    return torch.stack((angles.cos(), angles.sin()), dim=1)


def test_contrast_is_lower_for_grouped_speakers_than_for_mixed_ones():
    clips, near = torch.arange(4), embeddings(0.0, 0.1, 2.0, 2.1)
    grouped = contrastive_speaker_loss(near, torch.tensor([0, 0, 1, 1]), clips, 0.07)
    mixed = contrastive_speaker_loss(near, torch.tensor([0, 1, 0, 1]), clips, 0.07)
    assert float(grouped) < 0.1 < float(mixed)


@pytest.mark.parametrize("temperature", [0.2, 0.5])
def test_contrast_is_the_chance_of_the_right_clip_among_the_others(temperature):
    """Clips of the first speaker at 0 and 0.6, one of the second at 1.4: log(1 + exp((wrong - right) / t))."""
    loss = contrastive_speaker_loss(embeddings(0.0, 0.6, 1.4), torch.tensor([0, 0, 1]), torch.arange(3), temperature)
    each = [math.log1p(math.exp((math.cos(wrong) - math.cos(0.6)) / temperature)) for wrong in (1.4, 0.8)]
    assert float(loss) == pytest.approx(sum(each) / 2, rel=1e-4)


def test_contrast_needs_another_clip_of_the_speaker_and_another_speaker():
    near = embeddings(0.0, 0.1, 2.0).requires_grad_()
    for speakers, clips in (([0, 1, 2], [0, 1, 2]), ([0, 0, 0], [0, 1, 2]), ([0, 0, 1], [7, 7, 8])):
        loss = contrastive_speaker_loss(near, torch.tensor(speakers), torch.tensor(clips), 0.07)
        assert float(loss.detach()) == 0
        assert torch.autograd.grad(loss, near)[0].isfinite().all()
