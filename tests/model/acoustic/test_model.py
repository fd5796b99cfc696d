"""Properties of the acoustic model: what must influence the speech, what must not, and that every setting acts."""

import torch

from model.acoustic import Reference, Style
from model.acoustic.layers import Conv1d
from model.acoustic.predictors import average_over_tokens
from model.config.schema import LossConfig
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


def test_evaluation_has_no_chance_in_it(make_model, batch, feature):
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


def test_controls_change_the_speech(make_model, batch):
    model = make_model()
    plain = synthesize(model, batch)
    assert int(synthesize(model, batch, speed=0.5).mel_lengths.sum()) > int(plain.mel_lengths.sum())
    for control in ("pitch_shift", "energy_shift"):
        assert float((synthesize(model, batch, **{control: 1.0}).mel - plain.mel).abs().max()) > 1e-4


def test_durations_sum_to_the_frames(make_model, make_batch):
    batch = make_batch([(4, 4), (7, 50), (1, 3)])
    assert make_model()(batch).alignment.durations.sum(1).tolist() == [4, 50, 3]


def test_the_loss_reaches_every_parameter(make_model, make_batch, feature):
    batch = make_batch([(5, 20), (9, 41), (6, 30), (4, 25)])
    batch.speaker = torch.tensor([0, 1, 0, 1])
    config = LossConfig(use_contrastive_speaker_loss=True, use_guided_attention=True, kl_free_bits=0.0)
    model = make_model(**feature).train()
    terms = loss_terms(model(batch), batch, config)
    weighted_sum(terms, loss_weights(config, 1.0)).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert silent == []


def test_known_durations_leave_the_aligner_out(make_model, batch):
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


def test_losses_of_a_padded_batch_are_means_over_true_lengths(make_model, make_batch, alone):
    model = make_model()
    batch = make_batch([(6, 30), (6, 30)])
    batch.token_lengths[1], batch.mel_lengths[1] = 3, 10
    terms = loss_terms(model(batch), batch, LossConfig())
    parts = [loss_terms(model(alone(batch, i)), alone(batch, i), LossConfig()) for i in range(2)]
    expected = (30 * parts[0]["mel"] + 10 * parts[1]["mel"]) / 40
    torch.testing.assert_close(terms["mel"], expected, atol=1e-4, rtol=1e-4)


def test_speech_far_longer_than_any_in_training_is_finite(make_model, make_batch):
    batch = make_batch([(400, 900)])
    assert bool(synthesize(make_model(), batch).mel.isfinite().all())


def test_pitch_is_averaged_over_the_voiced_frames_of_each_token():
    values = torch.tensor([[1.0, 3.0, 9.0, 5.0, 7.0, 2.0]])
    voiced = torch.tensor([[True, True, False, True, False, False]])
    mean = average_over_tokens(values, torch.tensor([[3, 1, 2]]), voiced)
    torch.testing.assert_close(mean, torch.tensor([[2.0, 5.0, 0.0]]))


def test_our_convolution_is_the_convolution():
    ours, theirs = Conv1d(4, 6, 5), torch.nn.Conv1d(4, 6, 5, padding=2)
    with torch.no_grad():
        theirs.weight.copy_(ours.weight.view(6, 5, 4).transpose(1, 2))
        theirs.bias.copy_(ours.bias)
    x = torch.randn(2, 9, 4)
    torch.testing.assert_close(ours(x), theirs(x.transpose(1, 2)).transpose(1, 2))
