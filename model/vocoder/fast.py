"""Generators as a processor speaks with them fastest: the same samples up to rounding, forwards only.

Activations keep their shape (B, C, N) and lie in memory with the channels last, the form in which a processor's
convolutions run best; weights are laid out for that once, and long kernels between many channels cost fewer products.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.vocoder.layers import Conv1d, ConvTranspose1d
from model.vocoder.univnet import KernelPredictor

LEAST_TERMS = 800
"""Taps times channels from which the transforms of `FourierConv1d` cost less than the products that they save."""
WINDOW = 32
"""Samples of a window of `FourierConv1d`: of 16, 32 and 64 the fastest for kernels of 7 and 11."""
TILE_BLOCKS = 64
"""Windows that a thread transforms at once: enough for products at full speed, few enough to stay in its cache."""


def speed_up(generator: nn.Module) -> nn.Module:
    """Swap the layers of a folded float32 or bfloat16 generator on a processor for their fast forms, in place."""
    for module in list(generator.modules()):
        if isinstance(module, KernelPredictor):
            module.sort()
        for name, layer in module.named_children():
            if isinstance(layer, ConvTranspose1d):
                setattr(module, name, ChannelsLastConvTranspose1d(layer))
            elif isinstance(layer, Conv1d):
                setattr(module, name, FourierConv1d(layer) if _pays_off(layer) else ChannelsLastConv1d(layer))
    return generator


def _pays_off(layer: Conv1d) -> bool:
    """Whether spectra are fine enough in the layer's precision, possible and worth their transforms."""
    terms = layer.kernel_size[0] * min(layer.in_channels, layer.out_channels)
    fits = layer.kernel_size[0] <= WINDOW // 2 and layer.padding_mode == "zeros"
    return layer.weight.dtype == torch.float32 and fits and terms >= LEAST_TERMS


class ChannelsLastConv1d(nn.Module):
    """A two-dimensional convolution of height 1, which is the one that processors have a channels-last form of."""

    def __init__(self, layer: Conv1d) -> None:
        super().__init__()
        self.register_buffer("weight", layer.weight.data.unsqueeze(2).contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", layer.bias.data)
        self.padding, self.padding_mode, self.dilation = layer.padding[0], layer.padding_mode, layer.dilation[0]

    def forward(self, x: Tensor) -> Tensor:
        x, padding = x.unsqueeze(2), self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, (padding, padding, 0, 0), mode=self.padding_mode), 0
        return F.conv2d(x, self.weight, self.bias, 1, (0, padding), (1, self.dilation)).squeeze(2)


class ChannelsLastConvTranspose1d(nn.Module):
    """As `ChannelsLastConv1d`."""

    def __init__(self, layer: ConvTranspose1d) -> None:
        super().__init__()
        self.register_buffer("weight", layer.weight.data.unsqueeze(2).contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", layer.bias.data)
        self.stride, self.padding, self.more = layer.stride[0], layer.padding[0], layer.output_padding[0]

    def forward(self, x: Tensor) -> Tensor:
        made = F.conv_transpose2d(
            x.unsqueeze(2), self.weight, self.bias, (1, self.stride), (0, self.padding), (0, self.more)
        )
        return made.squeeze(2)


class FourierConv1d(nn.Module):
    """A convolution as products of short windows' spectra: of 11 taps, 47 products make 22 samples instead of 242.

    A window's Fourier transform, the product of spectra (three real products for a complex one, by Gauss) and the way
    back are linear, and so are written as real matrices: y = A [(G w) * (B x)], as Winograd's algorithms are
    (arXiv:1509.09308), but with an error that does not grow with the window. A dilation of d makes d signals of one.
    The spectra of the weights take four to seven times the memory of the weights: 180 MB for HiFi-GAN v1.
    """

    def __init__(self, layer: Conv1d) -> None:
        super().__init__()
        taps, self.dilation, self.padding = layer.kernel_size[0], layer.dilation[0], layer.padding[0]
        forth, weights, back = spectral_matrices(WINDOW, taps)
        self.register_buffer("forth", forth.float())
        self.register_buffer("back", back.float())
        spectra = torch.einsum("pk,oik->pio", weights, layer.weight.data.double())
        self.register_buffer("spectra", spectra.float().contiguous())
        self.register_buffer("bias", layer.bias.data * WINDOW)  # added at frequency 0

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, N) -> (B, C', N)."""
        batch, width, length = x.shape
        hop, dilation, wide = len(self.back), self.dilation, self.spectra.shape[2]
        blocks = math.ceil(length / (hop * dilation))
        missing = (blocks * hop + WINDOW - hop) * dilation - length - self.padding
        rows = F.pad(x.transpose(1, 2), (0, 0, self.padding, missing))
        windows = rows.as_strided(
            (batch, dilation, blocks, WINDOW, width),
            (rows.stride(0), width, hop * dilation * width, dilation * width, 1),
        )
        made = rows.new_empty(batch, blocks, hop, dilation, wide)
        at_once = TILE_BLOCKS * torch.get_num_threads()
        for signals, results in zip(windows, made.permute(0, 3, 1, 2, 4), strict=True):
            for signal, result in zip(signals, results, strict=True):
                for tile, part in zip(signal.split(at_once), result.split(at_once), strict=True):
                    part.copy_(self._convolve(tile))
        return made.view(batch, -1, wide)[:, :length].transpose(1, 2)

    def _convolve(self, windows: Tensor) -> Tensor:
        """Windows (blocks, WINDOW, C) -> what the taps make of each (blocks, hop, C')."""
        spectrum = torch.bmm(self.forth.expand(len(windows), -1, -1), windows)  # (blocks, P, C)
        product = torch.bmm(spectrum.transpose(0, 1), self.spectra)  # (P, blocks, C')
        product[0] += self.bias
        return torch.bmm(self.back.expand(len(windows), -1, -1), product.transpose(0, 1))


def spectral_matrices(window: int, taps: int) -> tuple[Tensor, Tensor, Tensor]:
    """B (P, window), G (P, taps), A (window - taps + 1, P) with y_i = sum_k w_k x_(i + k) = (A [(G w) * (B x)])_i."""
    time = torch.arange(window, dtype=torch.float64)
    forth, weights, back = [], [], []
    for frequency in range(window // 2 + 1):
        turn = 2 * math.pi * frequency / window * time
        cosine, sine = turn.cos(), turn.sin()
        if frequency in (0, window // 2):  # real
            forth, weights, back = [*forth, cosine], [*weights, cosine], [*back, cosine / window]
            continue
        # Of x: a + ib with a = cosine, b = -sine; of w, conjugated: p + iq with p = cosine, q = sine. Then
        # ap - bq = k1 - k3 and aq + bp = k1 + k2, where k1 = p (a + b), k2 = a (q - p), k3 = b (p + q).
        forth += [cosine - sine, cosine, -sine]
        weights += [cosine, sine - cosine, cosine + sine]
        back += [2 / window * (cosine - sine), -2 / window * sine, -2 / window * cosine]
    return torch.stack(forth), torch.stack(weights)[:, :taps], torch.stack(back, 1)[: window - taps + 1]
