"""Features of a network on the way to its logits: the output of each stage, and the input of the last linear layer.

A network declares its stages by class attributes:

* ``feature_stages`` on the network: the submodules that end its stages, first to last. The stem is not a stage.
* ``summed_before_activation`` on a block that ends a stage and whose forward pass ends in a ReLU: the submodules whose
  outputs add up to what that ReLU takes.
* ``stages_before_activation`` on the network, instead, if the activation after a stage belongs to the next stage: the
  submodules whose outputs are the features before activation.

These are the features that feature distillation uses in RepDistiller and mdistiller. timm's ResNets, which declare
nothing, are supported by the tables below.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from timm.models import resnet
from torch import Tensor, nn

from dkl.errors import UserError

TIMM_RESNET_STAGES = ("layer1", "layer2", "layer3", "layer4")

LAST_ACTIVATION: dict[type[nn.Module], str] = {nn.ReLU: "", resnet.BasicBlock: "act2", resnet.Bottleneck: "act3"}
"""Modules that may end a stage and whose last activation is a submodule: its name; ``""`` is the module itself."""


class Features(NamedTuple):
    """``stages``, each ``[B, C, H, W]``, first to last, and ``pooled[B, C]``, the input of the last linear layer."""

    stages: list[Tensor]
    pooled: Tensor


class _Tap(NamedTuple):
    """Modules whose outputs (or inputs, if ``of_input``) add up to the features of one stage."""

    modules: list[nn.Module]
    of_input: bool = False


def _submodules(module: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    return [module.get_submodule(name) for name in names]


def _stage_ends(network: nn.Module) -> list[nn.Module]:
    """The modules that end the stages of ``network``; none if it declares no stages."""
    known = TIMM_RESNET_STAGES if isinstance(network, resnet.ResNet) else ()
    return _submodules(network, getattr(network, "feature_stages", known))


def _before_activation(last: nn.Module) -> _Tap:
    """Tap the input of the activation at the end of ``last``, the last block of a stage."""
    if names := getattr(last, "summed_before_activation", ()):
        return _Tap(_submodules(last, names))
    if type(last) not in LAST_ACTIVATION:
        raise UserError(
            f"the features before activation of {type(last).__name__} are not known: choose another network, or "
            "declare summed_before_activation on it (see dkl.models.features)"
        )
    return _Tap([last.get_submodule(LAST_ACTIVATION[type(last)])], of_input=True)


def _taps(network: nn.Module, before_activation: bool) -> list[_Tap]:
    """One tap per stage."""
    if not before_activation:
        return [_Tap([end]) for end in _stage_ends(network)]
    if names := getattr(network, "stages_before_activation", ()):
        return [_Tap([module]) for module in _submodules(network, names)]
    return [_before_activation(list(end.children())[-1]) for end in _stage_ends(network)]


def _keep(kept: list[Tensor], of_input: bool) -> Callable[..., None]:
    """A hook that keeps a copy of an input or output; a copy, because a later in-place activation may change it."""
    return lambda module, args, *output: kept.append((args[0] if of_input else output[0]).clone())


def forward_with_features(
    network: nn.Module, images: Tensor, *, before_activation: bool = False
) -> tuple[Tensor, Features]:
    """Return the logits of ``images`` and the features on the way, with their graph.

    ``stages`` is empty if the network declares none. With ``before_activation`` they are taken before the activation
    at the end of each stage. Raises UserError if that activation is not known, or if there is no linear layer. All
    hooks are removed afterwards.
    """
    heads = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not heads:
        raise UserError(
            f"{type(network).__name__} has no linear layer whose input could be the pooled features; choose another "
            "network"
        )
    pooled: list[Tensor] = []
    stages: list[list[Tensor]] = []
    with ExitStack() as hooks:
        # The last linear layer in the order of registration is the classifier.
        hooks.callback(heads[-1].register_forward_pre_hook(_keep(pooled, True)).remove)
        for modules, of_input in _taps(network, before_activation):
            stages.append([])
            for module in modules:
                register = module.register_forward_pre_hook if of_input else module.register_forward_hook
                hooks.callback(register(_keep(stages[-1], of_input)).remove)
        logits = network(images)
    return logits, Features([sum(parts[1:], parts[0]) for parts in stages], pooled[0])
