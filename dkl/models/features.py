"""Features of a network on the way to its logits, and other intermediate outputs.

For classifiers these are the output of each stage and the input of the last linear layer, as feature distillation uses
them in RepDistiller and mdistiller. A network declares its stages by class attributes:

* ``feature_stages`` on the network: the submodules that end its stages, first to last. The stem is not a stage.
* ``summed_before_activation`` on a block that ends a stage and whose forward pass ends in a ReLU: the submodules whose
  outputs add up to what that ReLU takes.
* ``stages_before_activation`` on the network, instead, if the activation after a stage belongs to the next stage: the
  submodules whose outputs are the features before activation.

timm's ResNets, which declare nothing, are supported by the tables below.

Networks that label pixels give features, auxiliary logits, and logits before up-sampling. They declare, as ``PSPNet``
does:

* ``feature_classifier``: the submodule whose input are the features and whose output are the logits at their size;
* ``auxiliary_head``: the submodule that gives auxiliary logits in train mode.

Networks of segmentation-models-pytorch need no declaration: their features are the input of ``segmentation_head``, and
their logits before up-sampling the output of its last convolution.
"""

from collections.abc import Callable
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


def _before_activation(last: nn.Module) -> _Tap:
    """Tap the input of the activation at the end of ``last``, the last block of a stage."""
    if names := getattr(last, "summed_before_activation", ()):
        return _Tap([last.get_submodule(name) for name in names])
    if type(last) not in LAST_ACTIVATION:
        raise UserError(
            f"the features before activation of {type(last).__name__} are not known: choose another network, or "
            "declare summed_before_activation on it (see dkl.models.features)"
        )
    return _Tap([last.get_submodule(LAST_ACTIVATION[type(last)])], of_input=True)


def _taps(network: nn.Module, before_activation: bool) -> list[_Tap]:
    """One tap per stage; none if ``network`` declares no stages."""
    known = TIMM_RESNET_STAGES if isinstance(network, resnet.ResNet) else ()
    ends = [network.get_submodule(name) for name in getattr(network, "feature_stages", known)]
    if not before_activation:
        return [_Tap([end]) for end in ends]
    if names := getattr(network, "stages_before_activation", ()):
        return [_Tap([network.get_submodule(name)]) for name in names]
    return [_before_activation(list(end.children())[-1]) for end in ends]


def _keep(kept: list[Tensor], of_input: bool) -> Callable[..., None]:
    """A hook that keeps a copy of an input or output; a copy, because a later in-place activation may change it."""
    return lambda module, args, *output: kept.append((args[0] if of_input else output[0]).clone())


def classifier_of(network: nn.Module) -> nn.Linear:
    """The last linear layer of ``network`` in the order of registration. Raises UserError if there is none."""
    heads = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not heads:
        raise UserError(
            f"{type(network).__name__} has no linear layer that could be its classifier; choose another network"
        )
    return heads[-1]


def forward_with_features(
    network: nn.Module, images: Tensor, *, before_activation: bool = False
) -> tuple[Tensor, Features]:
    """Return the logits of ``images`` and the features on the way, with their graph.

    ``stages`` is empty if the network declares none. With ``before_activation`` they are taken before the activation
    at the end of each stage. Raises UserError if that activation is not known, or if there is no linear layer. All
    hooks are removed afterwards.
    """
    classifier = classifier_of(network)
    pooled: list[Tensor] = []
    stages: list[list[Tensor]] = []
    with ExitStack() as hooks:
        hooks.callback(classifier.register_forward_pre_hook(_keep(pooled, True)).remove)
        for modules, of_input in _taps(network, before_activation):
            stages.append([])
            for module in modules:
                register = module.register_forward_pre_hook if of_input else module.register_forward_hook
                hooks.callback(register(_keep(stages[-1], of_input)).remove)
        logits = network(images)
    return logits, Features([sum(parts[1:], parts[0]) for parts in stages], pooled[0])


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
