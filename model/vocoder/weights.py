"""Names of the weights of normed layers in different checkpoints, and loading all of them.

Official files hold weight norm as `weight_g` and `weight_v`, and spectral norm as `weight_orig`, `weight_u` and
`weight_v`. The parametrizations of torch use other names. Re-exported files hold folded weights, or names with the
prefix `module.`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from model.errors import CheckpointFormatError

State = dict[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)

_WEIGHT_NORM = {"original0": "weight_g", "original1": "weight_v"}
_SPECTRAL_NORM = {"original": "weight_orig", "0._u": "weight_u", "0._v": "weight_v"}
_NEW = "parametrizations.weight."


def official_state(module: nn.Module) -> State:
    """Returns a copy of a module's state under official names; folded layers have a plain `weight`."""
    state: State = {}
    for name, tensor in module.state_dict().items():
        layer, found, rest = name.rpartition(_NEW)
        if found:
            name = layer + (_WEIGHT_NORM.get(rest) or _SPECTRAL_NORM[rest])
        state[name] = tensor.detach().clone()
    return state


def load_weights(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Loads weights under any of the names into a module with norms.

    Args:
        module: The module as built, with its norms.
        state: Name -> tensor.
        where: Origin of the weights, for error messages.

    Raises:
        CheckpointFormatError: names or shapes do not match.
    """
    weights = plain_names(state)
    expected = {name: tensor.shape for name, tensor in official_state(module).items()}
    for layer in [name.removesuffix("weight_g") for name in expected if name.endswith("weight_g")]:
        folded = weights.pop(f"{layer}weight", None)
        if folded is not None:  # the scale of the direction is arbitrary; here it equals the weight
            weights[f"{layer}weight_v"] = folded
            weights[f"{layer}weight_g"] = torch.linalg.vector_norm(
                folded, dim=tuple(range(1, folded.dim())), keepdim=True
            )
    missing, unknown = expected.keys() - weights.keys(), weights.keys() - expected.keys()
    shapes = [name for name in expected.keys() & weights.keys() if expected[name] != weights[name].shape]
    if missing or unknown or shapes:
        reasons = [f"lacks {_some(missing)}"] if missing else []
        reasons += [f"has the unknown {_some(unknown)}"] if unknown else []
        reasons += [f"{n} is {tuple(weights[n].shape)}, not {tuple(expected[n])}" for n in sorted(shapes)[:2]]
        raise CheckpointFormatError(
            f"{where}: does not match this network: {'; '.join(reasons)}; train it again or import another"
        )
    module.load_state_dict(dict(zip(module.state_dict(), (weights[name] for name in expected), strict=True)))


def plain_names(state: Mapping[str, Tensor]) -> State:
    """Returns the tensors of a state under official names."""
    plain: State = {}
    for name, tensor in state.items():
        name = name.removeprefix("module.")
        layer, found, rest = name.rpartition(_NEW)
        plain[layer + (_WEIGHT_NORM.get(rest) or _SPECTRAL_NORM.get(rest, rest)) if found else name] = tensor
    return plain


def fold_norms(module: Network) -> Network:
    """Replaces normed weights by plain ones for inference, in place, and returns the module."""
    for layer in module.modules():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return module


def _some(names: Iterable[str]) -> str:
    """Returns the first names and the number of the others."""
    shown = sorted(names)
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")
