"""The several ways in which weights of normed layers are named, read and written: old, new, folded, wrapped.

Official files hold weight norm as `weight_g` and `weight_v`, spectral norm as `weight_orig`, `weight_u` and `weight_v`;
torch's parametrisations name both otherwise; re-exports hold folded weights, or every name behind `module.`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from model.errors import CheckpointFormatError

State = dict[str, Tensor]

_WEIGHT_NORM = {"original0": "weight_g", "original1": "weight_v"}
_SPECTRAL_NORM = {"original": "weight_orig", "0._u": "weight_u", "0._v": "weight_v"}
_NEW = "parametrizations.weight."


def official_state(module: nn.Module) -> State:
    """The module's state under official names; folded layers keep their plain `weight`."""
    state = {}
    for name, tensor in module.state_dict().items():
        layer, found, rest = name.rpartition(_NEW)
        if found:
            name = layer + (_WEIGHT_NORM.get(rest) or _SPECTRAL_NORM[rest])
        state[name] = tensor.detach().clone()
    return state


def load_weights(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load a state of any of the namings into a module whose layers are normed.

    Args:
        module: As built, with its norms.
        state: Name -> tensor.
        where: Named in errors.

    Raises:
        CheckpointFormatError: names or shapes do not fit.
    """
    given = plain_names(state)
    wanted = {name: tensor.shape for name, tensor in official_state(module).items()}
    for layer in [name.removesuffix("weight_g") for name in wanted if name.endswith("weight_g")]:
        folded = given.pop(f"{layer}weight", None)
        if folded is not None:  # any direction of that norm is right; its own is the simplest
            given[f"{layer}weight_v"] = folded
            given[f"{layer}weight_g"] = torch.linalg.vector_norm(
                folded, dim=tuple(range(1, folded.dim())), keepdim=True
            )
    missing, unknown = wanted.keys() - given.keys(), given.keys() - wanted.keys()
    shapes = [name for name in wanted.keys() & given.keys() if wanted[name] != given[name].shape]
    if missing or unknown or shapes:
        reasons = [f"lacks {_some(missing)}"] if missing else []
        reasons += [f"has the unknown {_some(unknown)}"] if unknown else []
        reasons += [f"{n} is {tuple(given[n].shape)}, not {tuple(wanted[n])}" for n in sorted(shapes)[:2]]
        raise CheckpointFormatError(f"{where}: does not fit this network: {'; '.join(reasons)}")
    module.load_state_dict(dict(zip(module.state_dict(), (given[name] for name in wanted), strict=True)))


def plain_names(state: Mapping[str, Tensor]) -> State:
    """The same tensors under official names, whatever naming they came in."""
    plain = {}
    for name, tensor in state.items():
        name = name.removeprefix("module.")
        layer, found, rest = name.rpartition(_NEW)
        plain[layer + (_WEIGHT_NORM.get(rest) or _SPECTRAL_NORM.get(rest, rest)) if found else name] = tensor
    return plain


def fold(module: nn.Module) -> nn.Module:
    """Compute every norm once and for all, in place: for inference."""
    for layer in module.modules():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return module


def _some(names: set[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")
