"""What a network computes on its way to the logits: its stages' features, and what its last linear layer takes.

Features are those that feature distillation uses (RepDistiller, mdistiller): the output of each stage, or what the
activation at its end takes. The stem is no stage. Nothing is left on the network afterwards.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

from timm.models import resnet
from torch import Tensor, nn

from dkl.errors import UserError
from dkl.models.distillation import cifar_resnet, cifar_resnet18
from dkl.models.distillation.cifar_mobilenetv2 import CifarMobileNetV2
from dkl.models.distillation.cifar_shufflev1 import CifarShuffleV1
from dkl.models.distillation.cifar_shufflev2 import CifarShuffleV2
from dkl.models.distillation.cifar_vgg import CifarVGG
from dkl.models.distillation.mobilenetv1 import MobileNetV1
from dkl.models.robust.wide_resnet import WideResNet

LAYERS = ("layer1", "layer2", "layer3", "layer4")

STAGES: dict[type[nn.Module], tuple[str, ...]] = {
    cifar_resnet.CifarResNet: LAYERS[:3],
    cifar_resnet18.FourGroupResNet: LAYERS,
    resnet.ResNet: LAYERS,
    CifarShuffleV1: LAYERS[:3],
    CifarShuffleV2: LAYERS[:3],
    WideResNet: ("block1", "block2", "block3"),
    CifarVGG: ("block1", "block2", "block3", "block4"),
    CifarMobileNetV2: ("blocks.1", "blocks.2", "blocks.4", "blocks.6"),
    MobileNetV1: ("model.3", "model.5", "model.11", "model.13"),
}
"""The modules that end the stages of a network, where the size falls next; timm's ResNets are among them."""

SUMS: dict[type[nn.Module], tuple[str, str]] = {
    cifar_resnet.BasicBlock: ("bn2", "downsample"),
    cifar_resnet18.BasicBlock: ("bn2", "shortcut"),
    cifar_resnet18.Bottleneck: ("bn3", "shortcut"),
}
"""Last blocks of a stage, and what they add up before their ReLU."""

ACTIVATIONS: dict[type[nn.Module], str] = {nn.ReLU: "", resnet.BasicBlock: "act2", resnet.Bottleneck: "act3"}
"""Last modules of a stage whose own last activation is a module, and its name in them."""


class Features(NamedTuple):
    """``stages`` are ``[B, C, H, W]`` each, from the first to the last; ``pooled[B, C]`` is what the classes see."""

    stages: list[Tensor]
    pooled: Tensor


def _ends(network: nn.Module) -> list[nn.Module]:
    """The modules that end the stages of ``network``, or none where its stages are not known."""
    names = next((names for kind, names in STAGES.items() if isinstance(network, kind)), ())
    return [network.get_submodule(name) for name in names]


def _before(last: nn.Module) -> tuple[list[nn.Module], bool]:
    """The modules whose outputs add up to what the activation at the end of ``last`` takes; or that one, and True."""
    if names := SUMS.get(type(last)):
        return [last.get_submodule(name) for name in names], False
    if type(last) not in ACTIVATIONS:
        raise UserError(f"{type(last).__name__} ends in no activation whose input is known: choose another network")
    return [last.get_submodule(ACTIVATIONS[type(last)])], True


def _taps(network: nn.Module, before_activation: bool) -> list[tuple[list[nn.Module], bool]]:
    """For each stage the modules whose outputs, or inputs where True, add up to its features."""
    if not before_activation:
        return [([end], False) for end in _ends(network)]
    if isinstance(network, WideResNet):  # what a group adds up is normalised and activated by the next
        opening = (network.block2.layer[0], network.block3.layer[0], network)
        return [([module.get_submodule("bn1")], False) for module in opening]
    return [_before(list(end.children())[-1]) for end in _ends(network)]


def _keep(kept: list[Tensor], of_input: bool) -> Callable[..., None]:
    """A hook that copies an input or output: what follows may change it in place."""
    return lambda module, args, *output: kept.append((args[0] if of_input else output[0]).clone())


def forward_with_features(
    network: nn.Module, images: Tensor, *, before_activation: bool = False
) -> tuple[Tensor, Features]:
    """Logits of ``images`` and the features on the way, with their graph; no stages where they are not known.

    Stages are as they leave, or as the activation at their end takes them: of ResNets, WRN, VGG and MobileNet. Raises
    UserError where a stage has no such activation, and where there is no linear layer.
    """
    heads = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not heads:
        raise UserError(f"{type(network).__name__} has no linear layer, before which features are taken")
    pooled: list[Tensor] = []
    stages: list[list[Tensor]] = []
    with ExitStack() as hooks:
        hooks.callback(heads[-1].register_forward_pre_hook(_keep(pooled, True)).remove)
        for modules, of_input in _taps(network, before_activation):
            stages.append([])
            for module in modules:
                register = module.register_forward_pre_hook if of_input else module.register_forward_hook
                hooks.callback(register(_keep(stages[-1], of_input)).remove)
        logits = network(images)
    return logits, Features([sum(parts[1:], parts[0]) for parts in stages], pooled[0])
