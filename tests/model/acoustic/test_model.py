"""Properties of the acoustic model: what influences the speech, and what does not."""

import pytest
import torch

from model.acoustic.alignment import best_path, diagonal_prior
from model.acoustic.conditioning import Reference, Style
from model.acoustic.layers import LinearConv1d
from model.acoustic.model import LONGEST_TOKEN, ProsodyShift, position_features
from model.acoustic.predictors import average_over_tokens
from model.config.training import LossConfig
from model.training.losses import loss_terms, loss_weights, weighted_sum


def synthesize(model, batch, **controls):
    style = Style(Reference(batch.reference_mel, batch.reference_lengths))
    return model.synthesize(batch.ids, batch.token_lengths, batch.speaker_vector, batch.language, style, **controls)


def test_a_clip_alone_equals_the_clip_in_a_padded_batch(make_model, batch, feature, alone):
    model = make_model(**feature)
    together = model(batch)
    for i, (tokens, frames) in enumerate(((5, 20), (9, 41))):
        single = model(alone(batch, i))
        torch.testing.assert_close(together.mel[i, :frames], single.mel[0], atol=1e-4, rtol=1e-4)
        soft = together.alignment.log_soft[i, :frames, :tokens].exp()
        torch.testing.assert_close(soft, single.alignment.log_soft[0].exp(), atol=1e-4, rtol=1e-4)
        assert together.alignment.durations[i, :tokens].tolist() == single.alignment.durations[0].tolist()
        for part in ("log_durations", "pitch", "energy"):
            for side in ("predicted", "target"):
                padded = getattr(getattr(together, side), part)[i]
                torch.testing.assert_close(
                    padded[:tokens], getattr(getattr(single, side), part)[0], atol=1e-4, rtol=1e-4
                )
                assert padded[tokens:].abs().sum() == 0


def test_synthesis_alone_equals_synthesis_in_a_padded_batch(make_model, batch, feature, alone):
    model = make_model(**feature)
    together = model.synthesize_batch(batch)
    for i, tokens in enumerate((5, 9)):
        single = model.synthesize_batch(alone(batch, i))
        assert together.durations[i, :tokens].tolist() == single.durations[0].tolist()
        torch.testing.assert_close(together.mel[i, : together.mel_lengths[i]], single.mel[0], atol=1e-4, rtol=1e-4)


def test_evaluation_is_deterministic(make_model, batch, feature):
    model = make_model(**feature)
    assert torch.equal(model(batch).mel, model(batch).mel)
    assert torch.equal(model.synthesize_batch(batch).mel, model.synthesize_batch(batch).mel)


def test_values_in_the_padding_change_nothing(make_model, batch, feature):
    model = make_model(**feature)
    before = model(batch)
    batch.mel[0, 20:] = 3.0
    batch.pitch[0, 20:] = 9.0
    batch.energy[0, 20:] = 9.0
    batch.reference_mel[0, 190:] = 3.0
    after = model(batch)
    torch.testing.assert_close(after.mel[0, :20], before.mel[0, :20], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after.conditions.vector, before.conditions.vector, atol=1e-6, rtol=1e-6)


def test_every_token_stress_speaker_and_language_influences_the_speech(make_model, batch, alone):
    model = make_model()
    single = alone(batch, 1)
    before = synthesize(model, single).mel
    for position in range(9):
        for channel, size in ((0, 20), (1, 3)):
            changed = single.ids.clone()
            changed[0, position, channel] = (changed[0, position, channel] + 1) % size or 1
            after = model.synthesize(changed, single.token_lengths, single.speaker_vector, single.language).mel
            assert after.shape != before.shape or float((after - before).abs().max()) > 1e-4
    for changed in (
        {"speaker_vector": -single.speaker_vector, "language": single.language},
        {"speaker_vector": single.speaker_vector, "language": 1 - single.language},
    ):
        after = model.synthesize(single.ids, single.token_lengths, **changed).mel
        assert after.shape != before.shape or float((after - before).abs().max()) > 1e-4


def test_the_speakers_language_changes_the_voice_but_not_the_prosody(make_model, batch):
    model, other = make_model(), 1 - batch.language
    native, foreign = synthesize(model, batch), synthesize(model, batch, speaker_language=other)
    assert torch.equal(native.durations, foreign.durations)
    assert torch.equal(native.prosody.pitch, foreign.prosody.pitch)
    assert float((native.mel - foreign.mel).abs().max()) > 1e-4
    same = synthesize(model, batch, speaker_language=batch.language)
    torch.testing.assert_close(same.mel, native.mel, atol=1e-4, rtol=1e-4)


def test_replacing_the_language_gives_the_condition_of_the_other_language(make_model, batch):
    conditioning = make_model().conditioning
    speaker, text = torch.randn(2, 256), torch.randn(2, 32)
    english, persian = (conditioning(text, speaker, torch.tensor([i, i]), Style()).vector for i in (0, 1))
    kept = conditioning.replace_language(persian, torch.tensor([1, 1]), torch.tensor([0, 0]))
    torch.testing.assert_close(kept, english)


def test_controls_change_the_speech(make_model, batch):
    model = make_model()
    plain = synthesize(model, batch)
    assert int(synthesize(model, batch, shift=ProsodyShift(speed=0.5)).mel_lengths.sum()) > int(plain.mel_lengths.sum())
    for shift in (ProsodyShift(pitch=1.0), ProsodyShift(energy=1.0)):
        assert float((synthesize(model, batch, shift=shift).mel - plain.mel).abs().max()) > 1e-4


def test_evaluation_refines_alignments_twice_as_often_as_training(make_model, batch):
    once, twice = (make_model(use_location_attention=True, location_iterations=n, aligner_dropout=0.0) for n in (1, 2))
    for name, parameter in twice.named_parameters():
        torch.testing.assert_close(parameter, once.get_parameter(name), rtol=0, atol=0)
    recorded = once(batch).alignment.log_soft
    assert torch.equal(recorded, twice.train()(batch).alignment.log_soft)
    assert not torch.equal(recorded, once.train()(batch).alignment.log_soft)


def test_the_mask_of_forward_attention_applies_in_evaluation_only(make_model, batch):
    free, masked = (
        make_model(use_forward_attention=True, forward_attention_mask=mask, aligner_dropout=0.0)
        for mask in (False, True)
    )
    assert not torch.equal(free(batch).alignment.log_soft, masked(batch).alignment.log_soft)
    assert torch.equal(free.train()(batch).alignment.log_soft, masked.train()(batch).alignment.log_soft)


def test_an_aligner_without_scores_returns_the_prior(make_model, batch):
    model = make_model()
    for part in (model.aligner.keys[-1], model.aligner.queries[-1]):
        for parameter in part.parameters():
            torch.nn.init.zeros_(parameter)
    soft = model(batch).alignment.log_soft[0, :20, :5]
    torch.testing.assert_close(
        soft, diagonal_prior(torch.tensor([20]), torch.tensor([5]), 20, 5)[0], atol=1e-4, rtol=1e-4
    )


def test_transition_odds_enter_the_durations(make_model, batch):
    model, odds = make_model(use_forward_attention=True), []
    torch.nn.init.normal_(model.aligner.advance.weight, std=30.0)
    model.aligner.advance.register_forward_hook(lambda *call: odds.append(call[-1].squeeze(2)))
    alignment = model(batch).alignment
    lengths = (batch.token_lengths, batch.mel_lengths)
    assert torch.equal(alignment.durations, best_path(alignment.log_emission, *lengths, odds[0]))
    assert not torch.equal(alignment.durations, best_path(alignment.log_emission, *lengths))


def test_durations_sum_to_the_frames(make_model, make_batch):
    batch = make_batch([(4, 4), (7, 50), (1, 3)])
    assert make_model()(batch).alignment.durations.sum(1).tolist() == [4, 50, 3]


def test_predicted_durations_are_bounded(make_model, batch):
    model = make_model()
    for bias, frames in ((-100.0, 1), (100.0, LONGEST_TOKEN)):
        torch.nn.init.constant_(model.duration_predictor.output.bias, bias)
        assert synthesize(model, batch).mel_lengths.tolist() == [5 * frames, 9 * frames]


def test_mels_are_in_the_units_of_the_recordings(make_model, batch):
    model = make_model()
    for parameter in model.mel_head.parameters():
        torch.nn.init.zeros_(parameter)
    assert bool((model(batch).mel[1] == model.dimensions.mel_mean).all())


def test_the_loss_reaches_every_parameter(make_model, make_batch, feature):
    batch = make_batch([(5, 20), (9, 41), (6, 30), (4, 25)])
    batch.speaker = torch.tensor([0, 1, 0, 1])
    config = LossConfig(use_contrastive_speaker_loss=True, use_guided_attention=True, kl_free_bits=0.0)
    model = make_model(**feature).train()
    terms = loss_terms(model(batch), batch, config)
    weighted_sum(terms, loss_weights(config, 1.0)).backward()
    without_gradient = [
        name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)
    ]
    assert without_gradient == []


def test_each_predictor_trains_itself_and_durations_do_not_train_the_encoder(make_model, batch):
    model = make_model(predictors_read="embedding").train()
    reached = {}
    for term in ("duration", "pitch", "energy"):
        loss_terms(model(batch), batch, LossConfig())[term].backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        reached[term] = {name.split(".")[0] for name, gradient in gradients.items() if bool(gradient.any())}
        model.zero_grad()
    assert reached["duration"] == {"duration_predictor", "predictor_condition"}
    for term, other in (("pitch", "energy"), ("energy", "pitch")):
        assert {f"{term}_predictor", "symbol_embedding", "conditioning"} <= reached[term]
        assert f"{other}_predictor" not in reached[term]


def test_known_durations_bypass_the_aligner(make_model, batch):
    model = make_model().train()
    batch.durations = torch.tensor([[4, 4, 4, 4, 4, 0, 0, 0, 0], [5, 5, 5, 5, 5, 5, 5, 5, 1]])
    output = model(batch)
    assert output.alignment is None
    terms = loss_terms(output, batch, LossConfig())
    assert not {"forward_sum", "binarization"} & set(terms)
    weighted_sum(terms, loss_weights(LossConfig(), 1.0)).backward()
    assert all(parameter.grad is None for parameter in model.aligner.parameters())


def test_a_perfect_prediction_is_the_minimum_of_its_terms(make_model, batch):
    output = make_model()(batch)
    output.mel = batch.mel
    output.predicted = output.target
    terms = loss_terms(output, batch, LossConfig())
    assert [float(terms[name]) for name in ("mel", "duration", "pitch", "energy")] == [0, 0, 0, 0]
    assert float(terms["length"]) < 1e-10


def test_the_length_term_is_the_squared_relative_error_of_the_whole_clip(make_model, batch):
    output = make_model()(batch)
    half = output.alignment.durations[0] / 2  # the first clip half as long, the second as it is
    output.predicted.log_durations = torch.stack((half, output.alignment.durations[1].float())).log1p()
    assert float(loss_terms(output, batch, LossConfig())["length"]) == pytest.approx((0.5**2 + 0) / 2, abs=1e-5)


def test_losses_of_a_padded_batch_are_means_over_true_lengths(make_model, make_batch, alone):
    model = make_model()
    batch = make_batch([(6, 30), (6, 30)])
    batch.token_lengths[1], batch.mel_lengths[1] = 3, 10
    terms = loss_terms(model(batch), batch, LossConfig())
    parts = [loss_terms(model(alone(batch, i)), alone(batch, i), LossConfig()) for i in range(2)]
    expected = (30 * parts[0]["mel"] + 10 * parts[1]["mel"]) / 40
    torch.testing.assert_close(terms["mel"], expected, atol=1e-4, rtol=1e-4)
    for term in ("duration", "pitch", "energy"):
        torch.testing.assert_close(terms[term], (6 * parts[0][term] + 3 * parts[1][term]) / 9, atol=1e-4, rtol=1e-4)


def test_very_long_speech_is_finite(make_model, make_batch):
    batch = make_batch([(400, 900)])
    assert bool(synthesize(make_model(), batch).mel.isfinite().all())


def test_pitch_is_averaged_over_the_voiced_frames_of_each_token():
    values = torch.tensor([[1.0, 3.0, 9.0, 5.0, 7.0, 2.0]])
    voiced = torch.tensor([[True, True, False, True, False, False]])
    mean = average_over_tokens(values, torch.tensor([[3, 1, 2]]), voiced)
    torch.testing.assert_close(mean, torch.tensor([[2.0, 5.0, 0.0]]))


def test_the_pitch_of_unvoiced_frames_has_no_effect(make_model, batch):
    model = make_model()
    before = model(batch).target
    batch.pitch[~batch.voiced] = 9.0
    after = model(batch).target
    assert torch.equal(before.pitch, after.pitch)
    assert torch.equal(before.energy, after.energy)


def test_position_features_are_relative_position_and_distances_to_both_ends():
    share, since_start, to_end = position_features(torch.tensor([[1, 3]]), torch.tensor([[0, 1, 1, 1]])).unbind(2)
    torch.testing.assert_close(share, torch.tensor([[1 / 2, 1 / 6, 3 / 6, 5 / 6]]))
    torch.testing.assert_close(since_start, torch.tensor([[0.0, 0.0, 1.0, 2.0]]).log1p())
    torch.testing.assert_close(to_end, torch.tensor([[0.0, 2.0, 1.0, 0.0]]).log1p())


def test_the_linear_convolution_equals_torchs():
    ours, theirs = LinearConv1d(4, 6, 5), torch.nn.Conv1d(4, 6, 5, padding=2)
    with torch.no_grad():
        theirs.weight.copy_(ours.weight.view(6, 5, 4).transpose(1, 2))
        theirs.bias.copy_(ours.bias)
    x = torch.randn(2, 9, 4)
    torch.testing.assert_close(ours(x), theirs(x.transpose(1, 2)).transpose(1, 2))
