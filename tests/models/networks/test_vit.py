"""USB's vision transformer has its size and keys, and its pretrained file loads by name without the classifier."""

from pathlib import Path

import pytest
import torch
from torch import nn

from dkl.errors import UserError
from dkl.models import create_model, load_initial_weights

SMALL = {"embed_dim": 12, "depth": 2, "num_heads": 2, "patch_size": 8}


def usb_keys(depth: int) -> set[str]:
    """The keys of USB's ``VisionTransformer``, as its nets/vit/vit.py defines the modules."""
    block = [f"{part}.{kind}" for part in ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
             for kind in ("weight", "bias")]  # fmt: skip
    blocks = {f"blocks.{number}.{key}" for number in range(depth) for key in block}
    others = {"cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight", "norm.bias"}
    return blocks | others | {"head.weight", "head.bias"}


def test_size_and_keys_are_usbs() -> None:
    with torch.device("meta"):
        model = create_model("vit_small_patch2_32", 100)
    assert set(model.state_dict()) == usb_keys(12)
    assert tuple(model.pos_embed.shape) == (1, 257, 384)
    assert (model.blocks[0].attn.num_heads, model.norm.eps) == (6, 1e-6)
    paths = [block.drop_path1.drop_prob for block in model.blocks if not isinstance(block.drop_path1, nn.Identity)]
    assert paths == pytest.approx([0.2 * number / 11 for number in range(1, 12)])
    assert model(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 100)


def test_the_classifier_starts_as_timms() -> None:
    """USB's has torch's uniform start instead, of deviation 0.029 with biases: docs/differences.md."""
    head = create_model("vit_small_patch2_32", 1000, depth=1).head
    assert head.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not head.bias.any()


def test_a_pretrained_file_loads_without_its_classifier(tmp_path: Path) -> None:
    published, model = (create_model("vit_small_patch2_32", classes, **SMALL) for classes in (1000, 7))
    head = model.head.weight.detach().clone()
    content = {f"module.{key}": value for key, value in published.state_dict().items()}
    torch.save({"model": content | {"module.fc.weight": torch.ones(3)}, "epoch": 3}, tmp_path / "usb.pth")
    assert "without the classifier" in load_initial_weights(model, tmp_path / "usb.pth")
    for key, value in model.state_dict().items():
        assert torch.equal(value, head if key == "head.weight" else published.state_dict().get(key, value)) or (
            key == "head.bias"
        )
    del content["module.norm.weight"]
    torch.save({"model": content}, tmp_path / "broken.pth")
    with pytest.raises(UserError, match=r"1 missing: norm\.weight"):
        load_initial_weights(model, tmp_path / "broken.pth")
