"""PSPNet has the layers, dilations and names of semseg and APD; smp's networks are built by name."""

from pathlib import Path

import pytest
import torch
from torch import nn

from dkl.errors import UserError
from dkl.models import create_model, forward_dense, load_checkpoint


def _dilations(layer: nn.Module) -> dict[str, tuple[int, int]]:
    return {
        name: (module.dilation[0], module.stride[0])
        for name, module in layer.named_modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
    }


@pytest.mark.parametrize(("name", "dilated"), [("pspnet_resnet18", "conv1"), ("pspnet_resnet101", "conv2")])
def test_stride_is_8_by_the_dilations_of_apd(name: str, dilated: str) -> None:
    with torch.device("meta"):
        model = create_model(name, 150).eval()
        out = forward_dense(model, torch.empty(2, 3, 473, 473))
    assert out.logits.shape == (2, 150, 473, 473)
    assert out.native is not None
    assert out.features is not None
    assert (out.native.shape, out.features.shape) == ((2, 150, 60, 60), (2, 512, 60, 60))
    for layer, dilation in ((model.layer3, 2), (model.layer4, 4)):
        for key, found in _dilations(layer).items():
            assert found == (dilation if key.endswith(dilated) else 1, 1)
    stem = [module.out_channels for module in model.layer0 if isinstance(module, nn.Conv2d)]
    assert stem == [64, 64, 128]


def test_files_of_semseg_and_of_apd_load_by_name(tmp_path: Path) -> None:
    saved, loaded = (create_model("pspnet_resnet10_w16", 3) for _ in range(2))
    apd = {f"module.{key}": value for key, value in saved.state_dict().items()}
    back = {"ppm.merge.0.": "cls.0.", "ppm.merge.1.": "cls.1.", "cls.0.": "cls.4."}
    semseg = {}
    for key, value in saved.state_dict().items():
        old = next((ours for ours in back if key.startswith(ours)), "")
        semseg["module." + back.get(old, "") + key.removeprefix(old)] = value
    assert "module.cls.4.weight" in semseg
    for content in (apd, semseg):
        torch.save({"epoch": 100, "state_dict": content}, tmp_path / "weights.pth")
        nn.init.zeros_(loaded.cls[0].weight)
        load_checkpoint(loaded, tmp_path / "weights.pth")
        for key, value in loaded.state_dict().items():
            assert torch.equal(value, saved.state_dict()[key])


def test_auxiliary_logits_exist_in_training_only() -> None:
    model, images = create_model("pspnet_resnet10_w16", 3), torch.rand(2, 3, 33, 41)
    out = forward_dense(model.train(), images)
    assert out.auxiliary is not None
    assert out.auxiliary.shape == (2, 3, 5, 6)
    assert forward_dense(model.eval(), images).auxiliary is None
    assert not any(module._forward_hooks for module in model.modules())


def test_networks_of_smp_have_features_and_unknown_ones_are_named() -> None:
    out = forward_dense(create_model("smp_fpn_resnet18", 3).eval(), torch.rand(1, 3, 32, 32))
    assert out.logits.shape == (1, 3, 32, 32)
    assert out.features is not None
    assert out.native is not None
    assert (out.features.shape[-2:], out.native.shape) == ((8, 8), (1, 3, 8, 8))  # its head up-samples by 4
    for name, message in [("smp_fpn", "names no encoder"), ("smp_fpn_resnet18x", "Wrong encoder name")]:
        with pytest.raises(UserError, match=message):
            create_model(name, 3)
