"""Faster forms of the generators' layers for inference on a CPU. Samples are equal up to rounding.

Activations keep their shape (B, C, N) but are stored channels-last, the layout in which convolutions on a CPU are
fastest. Weights are converted to it once. Long kernels between many channels are computed in the frequency domain.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.vocoder.layers import SameConv1d, UpsamplingConv1d
from model.vocoder.univnet import KernelPredictor

MIN_TERMS = 800
"""Taps times channels above which `FourierConv1d` saves more products than its transforms cost."""
WINDOW = 32
"""Samples per window of `FourierConv1d`; of 16, 32 and 64 the fastest for kernels of 7 and 11 taps."""
TILE_WINDOWS = 64
"""Windows per thread that are transformed together: enough for full speed, few enough for its cache."""

Network = TypeVar("Network", bound=nn.Module)


def optimize_for_cpu(generator: Network) -> Network:
    """Replaces the layers of a folded float32 or bfloat16 generator by faster ones, in place, and returns it."""
    for module in list(generator.modules()):
        if isinstance(module, KernelPredictor):
            module.reorder_kernels()
        for name, layer in module.named_children():
            if isinstance(layer, UpsamplingConv1d):
                setattr(module, name, ChannelsLastUpsampling(layer))
            elif isinstance(layer, SameConv1d):
                setattr(module, name, FourierConv1d(layer) if _pays_off(layer) else ChannelsLastConv1d(layer))
    return generator


def _pays_off(layer: SameConv1d) -> bool:
    """Returns whether `FourierConv1d` supports a layer, is precise enough for it and is faster."""
    terms = layer.kernel_size[0] * min(layer.in_channels, layer.out_channels)
    supported = layer.kernel_size[0] <= WINDOW // 2 and layer.padding_mode == "zeros"
    return layer.weight.dtype == torch.float32 and supported and terms >= MIN_TERMS


def _bias(layer: nn.Conv1d | nn.ConvTranspose1d) -> Tensor:
    assert layer.bias is not None
    return layer.bias.data


class ChannelsLastConv1d(nn.Module):
    """Convolution as a two-dimensional one of height 1, because only those have a channels-last form on a CPU."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: SameConv1d) -> None:
        super().__init__()
        self.register_buffer("weight", layer.weight.data.unsqueeze(2).contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", _bias(layer))
        self.padding, self.padding_mode, self.dilation = layer.side_padding, layer.padding_mode, layer.dilation[0]

    def forward(self, x: Tensor) -> Tensor:
        x, padding = x.unsqueeze(2), self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, (padding, padding, 0, 0), mode=self.padding_mode), 0
        return F.conv2d(x, self.weight, self.bias, 1, (0, padding), (1, self.dilation)).squeeze(2)


class ChannelsLastUpsampling(nn.Module):
    """Transposed convolution in the form of `ChannelsLastConv1d`."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: UpsamplingConv1d) -> None:
        super().__init__()
        self.register_buffer("weight", layer.weight.data.unsqueeze(2).contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", _bias(layer))
        self.stride, self.padding, self.output_padding = layer.stride[0], layer.side_padding, layer.output_padding[0]

    def forward(self, x: Tensor) -> Tensor:
        upsampled = F.conv_transpose2d(
            x.unsqueeze(2), self.weight, self.bias, (1, self.stride), (0, self.padding), (0, self.output_padding)
        )
        return upsampled.squeeze(2)


class FourierConv1d(nn.Module):
    """Convolution by products of the spectra of short windows: for 11 taps, 47 products give 22 samples, not 242.

    The Fourier transform of a window, the product of spectra (three real products for a complex one, after Gauss) and
    the inverse transform are linear, and so are written as real matrices: y = A [(G w) * (B x)]. Winograd's algorithms
    have the same form (arXiv:1509.09308), but their error grows with the window. A dilation of d splits the signal into
    d interleaved ones. The spectra of the weights take four to seven times their memory: 180 MB for HiFi-GAN v1.
    """

    analysis: Tensor
    synthesis: Tensor
    spectra: Tensor
    bias: Tensor

    def __init__(self, layer: SameConv1d) -> None:
        super().__init__()
        taps, self.dilation, self.padding = layer.kernel_size[0], layer.dilation[0], layer.side_padding
        analysis, weight_analysis, synthesis = spectral_matrices(WINDOW, taps)
        self.register_buffer("analysis", analysis.float())
        self.register_buffer("synthesis", synthesis.float())
        spectra = torch.einsum("pk,oik->pio", weight_analysis, layer.weight.data.double())
        self.register_buffer("spectra", spectra.float().contiguous())
        self.register_buffer("bias", _bias(layer) * WINDOW)  # added at frequency 0

    def forward(self, x: Tensor) -> Tensor:
        """Convolves (B, C, N) to (B, C', N)."""
        batch, width, length = x.shape
        hop, dilation, outputs = len(self.synthesis), self.dilation, self.spectra.shape[2]
        windows = math.ceil(length / (hop * dilation))
        missing = (windows * hop + WINDOW - hop) * dilation - length - self.padding
        rows = F.pad(x.transpose(1, 2), (0, 0, self.padding, missing))
        overlapping = rows.as_strided(
            (batch, dilation, windows, WINDOW, width),
            (rows.stride(0), width, hop * dilation * width, dilation * width, 1),
        )
        result = rows.new_empty(batch, windows, hop, dilation, outputs)
        tile_size = TILE_WINDOWS * torch.get_num_threads()
        for clip, clip_result in zip(overlapping, result.permute(0, 3, 1, 2, 4), strict=True):
            for signal, signal_result in zip(clip, clip_result, strict=True):
                tiles = zip(signal.split(tile_size), signal_result.split(tile_size), strict=True)
                for tile, tile_result in tiles:
                    tile_result.copy_(self._convolve(tile))
        return result.view(batch, -1, outputs)[:, :length].transpose(1, 2)

    def _convolve(self, windows: Tensor) -> Tensor:
        """Convolves windows (n, WINDOW, C) to their valid samples (n, hop, C')."""
        count = len(windows)
        spectrum = torch.bmm(self.analysis.expand(count, -1, -1), windows)  # (n, P, C)
        product = torch.bmm(spectrum.transpose(0, 1), self.spectra)  # (P, n, C')
        product[0] += self.bias
        return torch.bmm(self.synthesis.expand(count, -1, -1), product.transpose(0, 1))


def spectral_matrices(window: int, taps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the matrices of a convolution in the frequency domain.

    Returns:
        B (P, window), G (P, taps) and A (window - taps + 1, P), such that
        y_i = sum_k w_k x_(i + k) = (A [(G w) * (B x)])_i.
    """
    time = torch.arange(window, dtype=torch.float64)
    analysis: list[Tensor] = []
    weight_analysis: list[Tensor] = []
    synthesis: list[Tensor] = []
    for frequency in range(window // 2 + 1):
        angle = 2 * math.pi * frequency / window * time
        cosine, sine = angle.cos(), angle.sin()
        if frequency in (0, window // 2):  # the spectrum is real there
            analysis.append(cosine)
            weight_analysis.append(cosine)
            synthesis.append(cosine / window)
            continue
        # Spectrum of x: a + ib with a = cosine, b = -sine; of w, conjugated: p + iq with p = cosine, q = sine. Then
        # ap - bq = k1 - k3 and aq + bp = k1 + k2, where k1 = p (a + b), k2 = a (q - p), k3 = b (p + q).
        analysis += [cosine - sine, cosine, -sine]
        weight_analysis += [cosine, sine - cosine, cosine + sine]
        synthesis += [2 / window * (cosine - sine), -2 / window * sine, -2 / window * cosine]
    valid = window - taps + 1
    return torch.stack(analysis), torch.stack(weight_analysis)[:, :taps], torch.stack(synthesis, 1)[:valid]
