"""Published teachers: a local copy is loaded as it is, what does not fit is refused with the mend, so is no network."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from dkl.errors import UserError
from dkl.models import create_teacher

NAME = "resnet18.tv_in1k"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """The network of ``NAME``, untrained, BatchNorm's statistics changed."""
    torch.manual_seed(3)
    model = timm.create_model("resnet18", num_classes=1000)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def copies(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Its weights as hubs have them, and files that are no such copies."""
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
    """``NAME`` for ImageNet, but for ``changes``."""
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
def test_mistakes_are_found_before_anything_is_fetched(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(**asked)


@pytest.mark.parametrize("copy", ["other.pth", "empty.pth", "broken.safetensors", "text.pth"])
def test_a_file_that_is_no_copy_is_refused(copy: str, copies: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=rf"{copy} does not hold the published weights of resnet18\.tv_in1k: \S"):
        make(checkpoint=str(copies[copy]))


CLOSED = f"""
from dkl.errors import UserError
from dkl.models import create_teacher
try:
    create_teacher({NAME!r}, 1000, mean={MEAN}, std={STD}, size=[224, 224], pretrained=True)
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize("offline", ["0", "1"])
def test_without_a_network_the_file_to_bring_is_named(offline: str, tmp_path: Path) -> None:
    closed = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)}
    proxies = {key: "" for key in os.environ if key.lower().endswith("_proxy")}
    environment = os.environ | proxies | closed | {"HF_HUB_OFFLINE": offline}
    done = subprocess.run([sys.executable, "-c", CLOSED], env=environment, capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"the weights of {NAME} could not be downloaded (")
    assert "bring https://download.pytorch.org/models/resnet18-f37072fd.pth here" in line
    assert line.endswith("add task.teacher.checkpoint=FILE, where it lies")
