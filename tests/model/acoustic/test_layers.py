"""Custom layers give the same results as torch's layers."""

import pytest
import torch
from torch import nn

from model.acoustic.layers import AdaptiveLayerNorm, BidirectionalLSTM, Dropout, Transformer


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_zeroes_its_share_and_keeps_the_mean(p):
    torch.manual_seed(0)
    x = torch.rand(101, 999, requires_grad=True)
    out = Dropout(p)(x)
    hidden = out == 0
    assert float(hidden.float().mean()) == pytest.approx(p, abs=0.005)
    assert float(out.mean()) == pytest.approx(float(x.mean()), abs=0.005)
    torch.testing.assert_close(out, x * ~hidden / (1 - p))
    (gradient,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient, ~hidden / (1 - p))
    neighbors = torch.corrcoef(torch.stack([hidden.float().flatten()[lag : lag - 8] for lag in range(5)]))
    assert float((neighbors - torch.eye(5)).abs().max()) < 0.02  # decisions from one random number are independent


def test_dropout_follows_the_seed_and_is_off_in_evaluation():
    x, dropout = torch.randn(7, 33), Dropout(0.3)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(dropout(x))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(dropout.eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)


@pytest.mark.parametrize("lengths", [(9, 4, 1), (5, 5, 5)])
def test_the_bidirectional_lstm_equals_a_packed_bidirectional_lstm(lengths):
    torch.manual_seed(0)
    lengths = torch.tensor(lengths)
    x = torch.randn(3, int(lengths.max()), 6)
    ours, packed = BidirectionalLSTM(6, 4), nn.LSTM(6, 4, batch_first=True, bidirectional=True)
    weights = dict(ours.ahead.state_dict().items())
    weights |= {f"{name}_reverse": value for name, value in ours.back.state_dict().items()}
    packed.load_state_dict(weights)
    expected, _ = packed(nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
    expected, _ = nn.utils.rnn.pad_packed_sequence(expected, batch_first=True)
    inside = (torch.arange(x.shape[1]) < lengths[:, None])[:, :, None]
    torch.testing.assert_close(ours(x, lengths) * inside, expected * inside)
    if len(set(lengths.tolist())) == 1:
        torch.testing.assert_close(ours(x, None), expected)


def test_attention_depends_on_position_differences_alone():
    torch.manual_seed(0)
    # With kernel size 1, attention is the only part that depends on positions.
    stack = Transformer(layers=2, dim=8, num_heads=2, ffn_dim=16, kernel_size=1, dropout=0.0, condition_dim=4).eval()
    x, condition = torch.randn(1, 7, 8), torch.randn(1, 4)
    plain = stack(x, None, condition)
    assert float((stack(x.flip(1), None, condition).flip(1) - plain).abs().max()) > 1e-2
    later = torch.cat((torch.zeros(1, 500, 8), x), dim=1)
    mask = torch.arange(507)[None] >= 500
    torch.testing.assert_close(stack(later, mask, condition)[:, 500:], plain, atol=1e-4, rtol=1e-4)


def test_a_condition_scales_and_shifts_the_normalized_values():
    norm, x = AdaptiveLayerNorm(4, 2), torch.randn(1, 3, 4)
    plain = nn.functional.layer_norm(x, (4,))
    torch.testing.assert_close(norm(x, torch.randn(1, 2)), plain)  # zero-initialized: no effect
    with torch.no_grad():
        norm.modulation.bias.copy_(torch.tensor([0.5] * 4 + [2.0] * 4))
    torch.testing.assert_close(norm(x, torch.zeros(1, 2)), 1.5 * plain + 2.0)
