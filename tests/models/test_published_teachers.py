"""Published teachers: a local copy is loaded unchanged; wrong settings, damaged files and no network are refused."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

from dkl.errors import UserError
from dkl.models import create_teacher

NAME = "resnet18.tv_in1k"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """The network of ``NAME``, untrained, with random BatchNorm statistics."""
    torch.manual_seed(3)
    model = timm.create_model("resnet18", num_classes=1000)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def copies(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Its weights in the formats of hubs, and files that do not hold them."""
    folder = tmp_path_factory.mktemp("copies")
    state = network.state_dict()
    torch.save(state, folder / "plain.pth")
    torch.save({"state_dict": state}, folder / "wrapped.pth")
    save_file(state, folder / "model.safetensors")
    torch.save(timm.create_model("resnet18", num_classes=10).state_dict(), folder / "other.pth")
    (folder / "empty.pth").touch()
    (folder / "broken.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    (folder / "text.pth").write_text("<html>503</html>")
    return {path.name: path for path in folder.iterdir()}


def make(**changes: Any) -> nn.Module:
    """The teacher ``NAME`` for ImageNet, with ``changes``."""
    asked: dict[str, Any] = {"name": NAME, "num_classes": 1000, "mean": MEAN, "std": STD, "size": [224, 224]}
    return create_teacher(**(asked | {"pretrained": True} | changes))


@pytest.mark.parametrize("copy", ["plain.pth", "wrapped.pth", "model.safetensors"])
def test_a_local_copy_is_the_teacher(copy: str, copies: dict[str, Path], network: nn.Module) -> None:
    teacher = make(checkpoint=str(copies[copy]))
    expected = network.state_dict()
    assert teacher.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in teacher.state_dict().items())
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    images = torch.rand(2, 3, 64, 64)
    scaled = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(teacher(images), network(scaled), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"num_classes": 100},
            r"num_classes=100, but the published resnet18\.tv_in1k has 1000: train the teacher",
        ),
        ({"in_chans": 1}, "in_chans=1, but the published .* has 3"),
        ({"size": [32, 32]}, r"size=\[32, 32\], but the published .* has \[224, 224\]: train the teacher"),
        (
            {"mean": [0.5, 0.5, 0.5]},
            r"mean=\[0\.5, 0\.5, 0\.5\], but .* \[0\.485, .*: set task\.teacher\.mean",
        ),
        ({"mean": None, "std": None}, "mean=null, but the published"),
        ({"std": [0.5, 0.5, 0.5]}, r"std=.*: set task\.teacher\.mean and task\.teacher\.std"),
        ({"name": "resnet18.tv_in2k"}, r"there is no model 'resnet18\.tv_in2k': did you mean .*resnet18\.tv_in1k"),
        (
            {"name": "cifar_resnet8"},
            r"timm publishes no weights for task\.teacher\.name=cifar_resnet8; timm\.list_pretr",
        ),
        ({"checkpoint": "nowhere.pth"}, r"there is no file task\.teacher\.checkpoint=nowhere\.pth"),
        ({"run": "somewhere"}, "needs weights from one place"),
        ({"pretrained": False}, r"needs weights from one place: .*task\.teacher\.pretrained=true"),
    ],
)
def test_mistakes_are_found_before_anything_is_downloaded(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(**asked)


@pytest.mark.parametrize("copy", ["other.pth", "empty.pth", "broken.safetensors", "text.pth"])
def test_a_file_without_these_weights_is_refused(copy: str, copies: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=rf"{copy} does not hold the published weights of resnet18\.tv_in1k: \S"):
        make(checkpoint=str(copies[copy]))


@pytest.mark.parametrize("offline", [False, True])
def test_without_a_network_the_error_names_the_file_to_copy(
    offline: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in [key for key in os.environ if key.lower().endswith("_proxy")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # of the hub, between its attempts
    with pytest.raises(UserError) as caught:
        make()
    message = str(caught.value)
    assert message.startswith(f"the weights of {NAME} could not be downloaded (")
    assert "copy https://download.pytorch.org/models/resnet18-f37072fd.pth to this machine" in message
    assert message.endswith("add task.teacher.checkpoint=FILE")
    assert "\n" not in message


def test_weights_with_an_address_alone_need_its_server_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("dkl.storage.fetch.unreachable", lambda url: "no route")
    with pytest.raises(UserError, match=r"could not download https://.*seresnet18-4bb0ce65\.pth: no route"):
        make(name="legacy_seresnet18.in1k")
