"""Intermediate outputs of a network that labels pixels: features, auxiliary logits, logits before up-sampling.

A network declares, as ``PSPNet`` does:

* ``feature_classifier``: the submodule whose input are the features and whose output are the logits at their size;
* ``auxiliary_head``: the submodule that gives auxiliary logits in train mode.

Networks of segmentation-models-pytorch need no declaration: their features are the input of ``segmentation_head``, and
their logits before up-sampling the output of its last convolution.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

from torch import Tensor, nn


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

    def keep(name: str, of_input: bool = False) -> Callable[..., None]:
        return lambda module, args, output: kept.update({name: args[0] if of_input else output})

    taps = (
        (_submodule(network, "feature_classifier"), keep("features", of_input=True)),
        (native_classifier(network), keep("native")),
        (_submodule(network, "auxiliary_head"), keep("auxiliary")),
    )
    with ExitStack() as hooks:
        for module, hook in taps:
            if module is not None:
                hooks.callback(module.register_forward_hook(hook).remove)
        logits = network(images)
    return DenseOutput(logits, **{name: kept.get(name) for name in ("features", "native", "auxiliary")})
