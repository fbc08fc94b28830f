"""Intermediate outputs of a network that labels pixels: features, auxiliary logits, logits before up-sampling.

A network declares, as ``PSPNet`` does:

* ``feature_classifier``: the submodule whose input are the features and whose output are the logits at their size;
* ``auxiliary_head``: the submodule that gives auxiliary logits in train mode.

Networks of segmentation-models-pytorch need no declaration: their features are the input of ``segmentation_head``, and
their logits before up-sampling the output of its last convolution.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from torch import Tensor, nn

from dkl.console import say
from dkl.errors import UserError, first_line
from dkl.models.foreign_checkpoints import weights_in


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


STEMS = {
    # timm's deep stem is conv1 = (conv, BN, ReLU, conv, BN, ReLU, conv), then bn1; PSPNet's is one sequence.
    "timm": {"conv1.": "layer0.", "bn1.": "layer0.7."},
    # semseg's, which APD starts from: each convolution and BatchNorm has its own name.
    "semseg": {f"{kind}{i + 1}.": f"layer0.{3 * i + n}." for i in range(3) for n, kind in enumerate(("conv", "bn"))},
}


def load_encoder(network: nn.Module, name: str | None) -> None:
    """Load the ImageNet weights ``name``, a file or weights of timm, into ``network``, and print how many fit.

    Tensors whose names and shapes agree are loaded, with the stem renamed to that of ``PSPNet``. Nothing is read if
    ``name`` is None, or if ``network`` is on the meta device, as in checks of a configuration. Raises UserError if
    there are no such weights, if they cannot be loaded, or if nothing agrees.
    """
    if name is None:
        return
    path = Path(name) if Path(name).is_file() else None
    cfg = None if path else timm.models.get_pretrained_cfg(name)
    if not path and (cfg is None or not cfg.has_weights):
        raise UserError(
            f"task.encoder_weights={name} is no file, and timm publishes no weights of this name: see "
            "timm.list_pretrained()"
        )
    own = network.state_dict()
    if next(iter(own.values())).is_meta:
        return
    state = _timm_weights(name) if path is None else weights_in(path, set(own))
    renamed = {}
    stem = STEMS["semseg" if "conv3.weight" in state else "timm"]
    for key, value in state.items():
        old = next((prefix for prefix in stem if key.startswith(prefix)), "")
        renamed[stem.get(old, "") + key.removeprefix(old)] = value
    fitting = {key: value for key, value in renamed.items() if key in own and own[key].shape == value.shape}
    if not fitting:
        raise UserError(f"no weights of {name} fit {type(network).__name__}: choose those of its encoder")
    with torch.no_grad():
        for key, value in fitting.items():
            own[key].copy_(value)  # a state_dict shares the network's memory
    say(f"{name}: {len(fitting)} of {len(renamed)} tensors loaded into the encoder")


def _timm_weights(name: str) -> dict[str, Tensor]:
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"the weights of {name} cannot be loaded: {first_line(error)}; set task.encoder_weights"
        ) from None
