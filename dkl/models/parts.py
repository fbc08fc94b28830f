"""What the networks share: registration with timm by a table of variants, and building blocks."""

from collections.abc import Callable, Mapping
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.models import register_model
from torch import Tensor, nn

from dkl.errors import UserError

TIMM_ONLY = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "pretrained_model_args")
"""Arguments that timm adds by itself."""

DEFAULTS = {"num_classes": 10, "in_chans": 3}
"""The default input of a network; ``in_chans`` of some is 1."""


def register(module: str, network: Callable[..., nn.Module], variants: Mapping[str, Mapping[str, Any]]) -> None:
    """Register ``network`` with timm under each name of ``variants``, with the arguments given there.

    ``module`` is the ``__name__`` of the caller's file, by which timm groups its networks.
    """
    for name, arguments in variants.items():
        register_model(_entry_point(module, name, network, arguments))


def _entry_point(
    module: str, name: str, network: Callable[..., nn.Module], arguments: Mapping[str, Any]
) -> Callable[..., nn.Module]:
    """The function that timm calls to build ``name``; keyword arguments take precedence over ``arguments``.

    This project publishes no weights, but ``timm.create_model("local-dir:FOLDER", pretrained=True)`` and
    ``hf-hub:USER/MODEL`` load what ``dkl export`` wrote.
    """

    def build(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        source = kwargs.get("pretrained_cfg")
        if pretrained and not isinstance(source, dict) and not hasattr(source, "to_dict"):
            raise UserError("this model has no published weights: load a file with dkl.models.load_checkpoint instead")
        settings = {**arguments, **{key: value for key, value in kwargs.items() if key not in TIMM_ONLY}}
        model = network(**settings)
        if pretrained:
            config = source if isinstance(source, dict) else source.to_dict()  # type: ignore[union-attr]  # checked above
            sizes = {key: settings.get(key, default) for key, default in DEFAULTS.items()}
            # The classifier's place is not declared: the weights must have these classes.
            timm.models.load_pretrained(model, config, cache_dir=kwargs.get("cache_dir"), **sizes)
        return model

    build.__module__, build.__name__ = module, name  # timm registers a function by these
    return build


def conv(in_planes: int, out_planes: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias whose padding keeps the size at stride 1, for odd ``kernel``."""
    return nn.Conv2d(in_planes, out_planes, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def block_group(
    block: Callable[[int, int, int], nn.Module], blocks: int, in_planes: int, out_planes: int, stride: int
) -> nn.Sequential:
    """A sequence of ``blocks`` modules ``block(in_planes, out_planes, stride)``; only the first has the stride."""
    rest = (block(out_planes, out_planes, 1) for _ in range(blocks - 1))
    return nn.Sequential(block(in_planes, out_planes, stride), *rest)


def pool(x: Tensor) -> Tensor:
    """The mean of each channel of ``x[B, C, H, W]``: ``[B, C]``."""
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


def initialize_convolutions(network: nn.Module) -> None:
    """Draw convolution weights from N(0, 2 / (kernel area · output channels)); set biases to 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def initialize_head(head: nn.Linear) -> None:
    """Draw weights from N(0, 0.01²); set biases to 0."""
    nn.init.normal_(head.weight, 0, 0.01)
    nn.init.zeros_(head.bias)


class MeanSparse(nn.Module):
    """``x``, or its channel's mean where |x − mean| < threshold·√variance (Amini et al. 2024, MeanSparse).

    Channels are the dimension ``dim``. The statistics and the threshold come from a checkpoint, whose other
    buffers, and those named in ``unused``, have no effect. With the threshold 0 of a new network, it is the identity.
    """

    def __init__(self, width: int, dim: int = 1, unused: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.dim = dim
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, torch.zeros(width))
        for name in ("threshold", "batch_num", "flag_update_statistics", *unused):
            self.register_buffer(name, torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        shape = [1] * x.ndim
        shape[self.dim] = -1
        mean, variance = (self.get_buffer(f"running_{name}").view(shape) for name in ("mean", "var"))
        near = (x - mean).abs() < self.get_buffer("threshold") * variance.sqrt()
        return torch.where(near, mean, x)


def with_prefixes(state: Mapping[str, Tensor], new: Mapping[str, str]) -> dict[str, Tensor]:
    """``state`` with the beginnings of its keys renamed from the keys of ``new`` to their values."""
    renamed = {}
    for key, value in state.items():
        old = next((prefix for prefix in new if key.startswith(prefix)), "")
        renamed[new.get(old, "") + key.removeprefix(old)] = value
    return renamed
