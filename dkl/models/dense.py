"""Intermediate outputs of a network that labels pixels: features, auxiliary logits, logits before up-sampling.

A network declares, as ``PSPNet`` does:

* ``feature_classifier``: the submodule whose input are the features and whose output are the logits at their size;
* ``auxiliary_head``: the submodule that gives auxiliary logits in train mode.

Networks of segmentation-models-pytorch need no declaration: their features are the input of ``segmentation_head``, and
their logits before up-sampling the output of its last convolution.
"""

from contextlib import ExitStack
from typing import NamedTuple

import timm
import torch
from torch import Tensor, nn

from dkl.errors import UserError, first_line


class DenseOutput(NamedTuple):
    """``logits[B, C, H, W]`` at the images' size; ``features[B, D, h, w]``, ``native[B, C, h, w]`` and
    ``auxiliary[B, C, h, w]`` if the network has them.
    """

    logits: Tensor
    features: Tensor | None
    native: Tensor | None
    auxiliary: Tensor | None


def _submodule(network: nn.Module, attribute: str) -> nn.Module | None:
    """The submodule that ``network`` names by ``attribute``, if it does."""
    default = "segmentation_head" if attribute == "feature_classifier" and hasattr(network, "segmentation_head") else ""
    name = getattr(network, attribute, default)
    return network.get_submodule(name) if name else None


def feature_channels(network: nn.Module) -> int | None:
    """The number of channels of the features; None if the network has none."""
    classifier = _submodule(network, "feature_classifier")
    layers = [] if classifier is None else [m for m in classifier.modules() if isinstance(m, nn.Conv2d)]
    return layers[0].in_channels if layers else None


def native_classifier(network: nn.Module) -> nn.Module | None:
    """The submodule whose output are the logits before they are up-sampled; None if it is not known."""
    classifier = _submodule(network, "feature_classifier")
    if classifier is None or hasattr(network, "feature_classifier"):
        return classifier
    # smp's heads up-sample what their last convolution gives.
    return [module for module in classifier.modules() if isinstance(module, nn.Conv2d)][-1]


def forward_dense(network: nn.Module, images: Tensor) -> DenseOutput:
    """Forward ``images`` and return what was computed on the way, with its graph. All hooks are removed afterwards."""
    kept: dict[str, Tensor] = {}

    def keep_features(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        kept["features"] = args[0]

    def keep_native(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        kept["native"] = output

    def keep_auxiliary(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        kept["auxiliary"] = output

    taps = (
        (_submodule(network, "feature_classifier"), keep_features),
        (native_classifier(network), keep_native),
        (_submodule(network, "auxiliary_head"), keep_auxiliary),
    )
    with ExitStack() as hooks:
        for module, hook in taps:
            if module is not None:
                hooks.callback(module.register_forward_hook(hook).remove)
        logits = network(images)
    return DenseOutput(logits, **{name: kept.get(name) for name in ("features", "native", "auxiliary")})


def load_encoder(network: nn.Module, name: str) -> str:
    """Load the weights that timm publishes as ``name`` where names and shapes agree; returns one line about it.

    The stem is renamed to that of ``PSPNet``. Raises UserError if timm publishes no such weights, if they cannot be
    loaded, or if nothing agrees.
    """
    cfg = timm.models.get_pretrained_cfg(name)
    if cfg is None or not cfg.has_weights:
        raise UserError(f"timm publishes no weights for task.encoder_weights={name}: see timm.list_pretrained()")
    own = network.state_dict()
    try:
        state = timm.create_model(name, pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"the weights of {name} cannot be loaded: {first_line(error)}; set task.encoder_weights"
        ) from None
    # timm's deep stem is conv1 = (conv, BN, ReLU, conv, BN, ReLU, conv), then bn1; PSPNet's is one sequence.
    stem = {"conv1.": "layer0.", "bn1.": "layer0.7."}
    renamed = {}
    for key, value in state.items():
        old = next((prefix for prefix in stem if key.startswith(prefix)), "")
        renamed[stem.get(old, "") + key.removeprefix(old)] = value
    fitting = {key: value for key, value in renamed.items() if key in own and own[key].shape == value.shape}
    if not fitting:
        raise UserError(f"no weights of {name} fit {type(network).__name__}: choose those of its encoder")
    with torch.no_grad():
        for key, value in fitting.items():
            own[key].copy_(value)  # a state_dict shares the network's memory
    return f"{name}: {len(fitting)} of {len(renamed)} tensors loaded into the encoder"
