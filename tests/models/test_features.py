"""Features equal those of calling the network layer by layer, and no hook is left on the network afterwards.

Widths and sizes are those in ReviewKD's code for 32×32 images (CIFAR-100/model/reviewkd.py).
"""

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.errors import UserError
from dkl.models import create_model
from dkl.models.features import Features, forward_with_features
from tests.models.common import with_fitted_statistics

WIDTHS_AND_SIZES = {
    "cifar_resnet20": ([16, 32, 64, 64], [32, 16, 8]),
    "cifar_resnet8x4": ([64, 128, 256, 256], [32, 16, 8]),
    "cifar_resnet50": ([256, 512, 1024, 2048, 2048], [32, 16, 8, 4]),
    "cifar_wrn_16_2": ([32, 64, 128, 128], [32, 16, 8]),
    "cifar_vgg8": ([128, 256, 512, 512, 512], [16, 8, 4, 4]),
    "cifar_mobilenetv2": ([12, 16, 48, 160, 1280], [16, 8, 4, 2]),
    "cifar_shufflev1": ([240, 480, 960, 960], [16, 8, 4]),
    "cifar_shufflev2": ([116, 232, 464, 1024], [16, 8, 4]),
}
ENDING_IN_RELU = ("cifar_resnet20", "cifar_resnet18", "cifar_resnet50", "cifar_vgg13", "mobilenetv1", "resnet18")
ENDING_IN_RELU += ("resnet50",)


def network_and_images(name: str) -> tuple[nn.Module, Tensor]:
    """A network with fitted BatchNorm statistics in float64, and two images."""
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    return with_fitted_statistics(create_model(name, 7), images), images


def called_by_hand(name: str, network: nn.Module, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """Stages and pooled features, computed with the network's own layers."""
    layers = dict(network.named_children())
    if "vgg" in name:
        stages, x = [], layers["block0"](x)
        for number in (1, 2, 3, 4):
            x = layers[f"block{number}"](F.max_pool2d(x, 2) if number < 4 else x)
            stages.append(x)
        return stages, x.mean((2, 3))
    if "mobilenet" in name:
        x, outputs = layers["conv1"](x), []
        for block in layers["blocks"].children():
            x = block(x)
            outputs.append(x)
        return [outputs[index] for index in (1, 2, 4, 6)], layers["conv2"](x).mean((2, 3))
    stages, x = [], layers["conv1"](x)
    if "wrn" not in name:
        x = F.relu(layers["bn1"](x))
    for key, layer in layers.items():
        if key.startswith(("layer", "block")):
            x = layer(x)
            stages.append(x)
    if "wrn" in name:
        x = F.relu(layers["bn1"](x))
    if name == "cifar_shufflev2":
        x = F.relu(layers["bn2"](layers["conv2"](x)))
    return stages, x.mean((2, 3))


@pytest.mark.parametrize("name", WIDTHS_AND_SIZES)
def test_stages_are_the_outputs_of_the_layers(name: str) -> None:
    network, images = network_and_images(name)
    logits, found = forward_with_features(network, images)
    (*widths, pooled), sizes = WIDTHS_AND_SIZES[name]
    shapes = [(2, width, size, size) for width, size in zip(widths, sizes, strict=True)]
    assert [tuple(stage.shape) for stage in found.stages] == shapes
    assert found.pooled.shape == (2, pooled)
    stages, seen = called_by_hand(name, network, images)
    for one, other in zip([*found.stages, found.pooled], [*stages, seen], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert torch.equal(logits, network(images))


@pytest.mark.parametrize("name", ENDING_IN_RELU)
def test_features_before_activation_are_the_input_of_relu(name: str) -> None:
    network, images = network_and_images(name)
    _, before = forward_with_features(network, images, before_activation=True)
    logits, after = forward_with_features(network, images)
    for one, other in zip(before.stages, after.stages, strict=True):
        assert torch.equal(one.clamp(min=0), other)
        assert (one < 0).any()
    assert torch.equal(before.pooled, after.pooled)
    assert torch.equal(logits, network(images))


def test_features_before_activation_are_branch_plus_shortcut() -> None:
    network, images = network_and_images("cifar_resnet20")
    _, after = forward_with_features(network, images)
    _, before = forward_with_features(network, images, before_activation=True)
    x = after.stages[0]
    for block in list(network.get_submodule("layer2").children())[:-1]:
        x = block(x)
    last = network.get_submodule("layer2.2")
    branch = last.bn2(last.conv2(F.relu(last.bn1(last.conv1(x)))))  # type: ignore[operator]
    torch.testing.assert_close(before.stages[1], branch + x, rtol=1e-12, atol=1e-12)


def test_stages_of_a_wide_resnet_before_activation_are_normalized_by_the_next_group() -> None:
    network, images = network_and_images("cifar_wrn_16_2")
    _, after = forward_with_features(network, images)
    _, before = forward_with_features(network, images, before_activation=True)
    norms = ("block2.layer.0.bn1", "block3.layer.0.bn1", "bn1")
    for name, stage, found in zip(norms, after.stages, before.stages, strict=True):
        torch.testing.assert_close(found, network.get_submodule(name)(stage), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(F.relu(before.stages[-1]).mean((2, 3)), before.pooled, rtol=1e-12, atol=1e-12)


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


@pytest.mark.parametrize("before", [False, True])
def test_no_hook_is_left_on_the_network_even_if_it_fails(before: bool) -> None:
    network = create_model("cifar_resnet8", 7, mean=[0.5] * 3, std=[0.2] * 3).eval()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    forward_with_features(network, torch.rand(2, 3, 16, 16), before_activation=before)
    with pytest.raises(RuntimeError):
        forward_with_features(network, torch.rand(2, 4, 16, 16), before_activation=before)
    assert hooks(network) == 1  # its own, which normalizes
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_features_have_a_graph_and_batchnorm_is_updated_once() -> None:
    network = create_model("cifar_wrn_16_1", 7)
    for before in (False, True):
        _, found = forward_with_features(network, torch.rand(2, 3, 16, 16), before_activation=before)
        found.stages[1].square().sum().backward()
        assert network.get_submodule("conv1").weight.grad.abs().sum() > 0  # type: ignore[union-attr]
    assert {int(value) for key, value in network.state_dict().items() if key.endswith("num_batches_tracked")} == {2}


def test_networks_that_declare_no_stages_have_none_whatever_their_layers_are_called() -> None:
    flat = nn.Sequential(OrderedDict(layer1=nn.Flatten(), blocks=nn.Linear(48, 8), layer2=nn.Linear(8, 3)))
    images = torch.rand(2, 3, 4, 4)
    for network in (flat, create_model("small_cnn", 3, in_chans=3)):
        logits, found = forward_with_features(network, images)
        head = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
        assert isinstance(found, Features)
        assert found.stages == []
        assert torch.equal(head(found.pooled), logits)


@pytest.mark.parametrize("name", ["cifar_mobilenetv2", "cifar_shufflev1", "cifar_shufflev2"])
def test_stages_without_a_known_last_activation_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"before activation of .* are not known: choose another network"):
        forward_with_features(create_model(name, 7), torch.rand(2, 3, 32, 32), before_activation=True)


def test_a_network_without_a_linear_layer_is_refused() -> None:
    with pytest.raises(UserError, match="Flatten has no linear layer"):
        forward_with_features(nn.Flatten(), torch.rand(2, 3, 4, 4))


class Block(nn.Module):
    """A block that ends in the ReLU of a sum."""

    summed_before_activation = ("branch", "shortcut")

    def __init__(self) -> None:
        super().__init__()
        self.branch, self.shortcut = nn.Conv2d(3, 3, 1), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.shortcut(x))


class Own(nn.Module):
    """A network from outside this package that declares its stages."""

    feature_stages = ("first", "second")

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Sequential(Block()), nn.Sequential(Block(), Block()), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x)).mean((2, 3)))


def test_any_network_takes_part_by_class_attributes() -> None:
    network, images = Own(), torch.rand(2, 3, 4, 4)
    after, before = (forward_with_features(network, images, before_activation=flag)[1].stages for flag in (False, True))
    assert torch.equal(after[0], network.first(images))
    assert torch.equal(after[1], network.second(after[0]))
    assert [torch.equal(one.relu(), other) for one, other in zip(before, after, strict=True)] == [True, True]
