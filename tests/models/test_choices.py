"""Every model of configs/model and every network registered by this project builds, runs and has a title.

The lists come from the YAML files and from timm's registry, so that a new model is covered without an edit here. Sizes,
keys and equations of single networks are tested beside their oracles, in ``networks``.
"""

from pathlib import Path

import pytest
import timm
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from dkl.assembly import build_model
from dkl.errors import UserError

CHOICES = sorted(Path(__file__).parents[2].glob("configs/model/*.yaml"))
REGISTERED = [name for name in timm.list_models() if timm.model_entrypoint(name).__module__.startswith("dkl.")]

FIXED_SIZE = {"vit_small_patch2_32": 32}
"""Networks whose positions are learned for images of one size, in pixels; those of ImageNet take no smaller ones."""
FIXED_SIZE |= {name: 224 for name in REGISTERED if name.startswith(("convstem", "microsoft", "sparse_convnext"))}


def shape_of_logits(name: str, num_classes: int, size: int) -> tuple[int, ...]:
    """The logits of two images; networks for segmentation give each pixel its own."""
    return (2, num_classes, size, size) if name.startswith("pspnet") else (2, num_classes)


@pytest.mark.parametrize("path", CHOICES, ids=lambda path: path.stem)
def test_every_choice_builds_for_its_data_and_has_a_title(path: Path) -> None:
    cfg = OmegaConf.create({"data": {"num_classes": 7, "shape": [3, 32, 32], "mean": [0.5] * 3, "std": [0.2] * 3}})
    cfg.model = OmegaConf.load(path)
    if OmegaConf.is_missing(cfg.model, "name"):  # timm.yaml, any model by its name
        cfg.model.name, cfg.model.title = "resnet18", "a title"
    assert cfg.model.title
    with torch.device("meta"):
        model = instantiate(cfg.model).eval()
        logits = model(torch.empty(2, 3, 32, 32))
        assert logits.shape == shape_of_logits(path.stem, 7, 32)
    normalized = "input_mean" in dict(model.named_buffers())
    assert normalized == bool(cfg.model.get("mean"))


@pytest.mark.slow(minutes=0.01)
@pytest.mark.parametrize("name", REGISTERED)
def test_every_network_takes_cifar_digits_and_larger_images_and_promises_no_weights(name: str) -> None:
    with torch.device("meta"):
        for num_classes, channels, sizes in ((10, 1, {8: False}), (7, 3, {32: True, 64: False})):
            model = timm.create_model(name, num_classes=num_classes, in_chans=channels)
            for size, training in sizes.items():
                if size == FIXED_SIZE.get(name, size):
                    logits = model.train(training)(torch.empty(2, channels, size, size))
                    assert (logits.shape, logits.device.type) == (shape_of_logits(name, num_classes, size), "meta")
    with pytest.raises(UserError, match="load_checkpoint"):
        timm.create_model(name, pretrained=True)


class Plain(nn.Module):
    """A network that knows nothing of this project, not even titles."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(12, num_classes)


def test_any_module_is_a_model_whatever_its_title() -> None:
    model = build_model({"_target_": f"{__name__}.Plain", "title": "Plain net", "num_classes": 7})
    assert model.get_submodule("head").out_features == 7


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "dkl.models.create_model", "num_classes": 7}, r"model: .*missing .*'name'"),
        ({"_target_": f"{__name__}.Plain", "num_classes": 7, "width": 3}, r"model: .*unexpected .*'width'"),
        ({"_target_": "builtins.dict"}, r"model: builtins\.dict must return a torch"),
    ],
)
def test_a_choice_that_makes_no_model_is_refused_in_one_line(node: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=rf"^{message}[^\n]*$"):
        build_model(node)
