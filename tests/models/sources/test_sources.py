"""A network named in one line becomes its configuration and its weights; what does not fit is refused."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from safetensors.torch import save_file

from dkl.errors import UserError
from dkl.models import create_model, load_checkpoint
from dkl.models.sources import Request, Source, named, resolve
from dkl.models.teacher import create_teacher
from tests.data.download_server import Site, serve

NETS = """
from torch import nn
not_a_network = 3
def line(num_classes, in_channels=1, bias=True):
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, num_classes, bias=bias))
"""


def wanted(**given: object) -> Request:
    return Request(**{"num_classes": 10, "shape": [1, 8, 8], "dataset": "cifar10", **given})


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serve() as running:
        yield running


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module of its own name and a file of weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / f"nets_{tmp_path.name}.py").write_text(NETS)
    return tmp_path


def test_a_function_of_the_current_folder_gets_the_facts_it_asks_for(here: Path) -> None:
    request = wanted(checkpoint=here / "w.pt", arguments={"bias": False}, shape=[3, 8, 8])
    source = resolve(f"nets_{here.name}:line", request)
    assert source == Source(
        model={"_target_": f"nets_{here.name}.line", "num_classes": 10, "in_channels": 3, "bias": False},
        weights=here / "w.pt",
    )


def test_any_function_can_have_its_input_normalized(here: Path) -> None:
    torch.manual_seed(0)
    request = wanted(checkpoint=here / "w.pt", mean=[0.5], std=[0.25])
    model = instantiate(resolve(f"nets_{here.name}:line", request).model)
    x = torch.rand(2, 1, 8, 8)
    by_hand = (x.flatten(1) - 0.5) / 0.25 @ model[1].weight.T + model[1].bias
    torch.testing.assert_close(model(x), by_hand)


def test_a_name_of_timm_is_a_network_with_a_file_or_with_published_weights() -> None:
    source = resolve("timm:wrn10_2", wanted(checkpoint=Path("w.pt")))
    assert source.model == {"_target_": "dkl.models.create_model", "name": "wrn10_2", "num_classes": 10, "in_chans": 1}
    published = resolve("timm:resnet18.a1_in1k", wanted(num_classes=1000, shape=[3, 224, 224]))
    assert published.weights is None
    assert published.model["pretrained"]
    assert published.model["mean"] == [0.485, 0.456, 0.406]


def write_folder(folder: Path, **changes: object) -> torch.nn.Module:
    """A folder as timm writes it; returns its network, with its normalization inside."""
    model = create_model("wrn10_2_swish", 10, 1, [0.5], [0.25]).eval()
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    about = {"mean": [0.5], "std": [0.25], "num_classes": 10}
    content = {"architecture": "wrn10_2_swish", "num_classes": 10, "pretrained_cfg": about, **changes}
    (folder / "config.json").write_text(json.dumps(content))
    return model


def test_a_local_folder_has_equal_logits(tmp_path: Path) -> None:
    model = write_folder(tmp_path / "mine")
    source = resolve(f"local-dir:{tmp_path / 'mine'}", wanted())
    loaded = instantiate(source.model).eval()
    load_checkpoint(loaded, source.weights)
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(loaded(x), model(x))


def test_a_config_cannot_choose_what_is_loaded(tmp_path: Path) -> None:
    write_folder(tmp_path / "mine", model_args={"pretrained": True, "checkpoint_path": "x", "drop_rate": 0.1})
    model = resolve(f"local-dir:{tmp_path / 'mine'}", wanted()).model
    assert model["_target_"] == "dkl.models.create_model"
    assert {"pretrained", "checkpoint_path"}.isdisjoint(model)
    assert model["drop_rate"] == 0.1


CODE = {"_target_": "sympy.sympify", "a": "open('executed', 'w')"}


@pytest.mark.parametrize(
    "arguments",
    [CODE, {"act": CODE}, {"act": [{"of": [CODE]}]}, {"act": {"_args_": []}}, {"act": ["${oc.env:HOME}"]}, {"${a}": 1}],
)
def test_a_config_holds_plain_values_at_any_depth(arguments: dict[str, object], tmp_path: Path) -> None:
    write_folder(tmp_path / "mine", model_args=arguments)
    with pytest.raises(UserError, match="may hold only plain values"):
        resolve(f"local-dir:{tmp_path / 'mine'}", wanted())


@pytest.mark.parametrize("changes", [{"architecture": "smp_unet_tu-hf-hub:a/b"}, {"mean": "${oc.env:HOME}"}])
def test_a_config_names_a_network_of_timm_and_its_numbers(changes: dict[str, object], tmp_path: Path) -> None:
    write_folder(tmp_path / "mine", **changes)
    with pytest.raises(UserError, match=r"add model=package\.module:function"):
        resolve(f"local-dir:{tmp_path / 'mine'}", wanted())


def test_a_model_of_robustbench_is_downloaded_once_and_its_hash_recorded(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.content = b"weights"
    monkeypatch.setattr(named, "address", lambda file: site.url.replace("tiny.tar.gz", f"download?id={file}"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    request = wanted(shape=[3, 32, 32])
    source = resolve("robustbench:Rice2020Overfitting", request)
    assert source.weights == tmp_path / "robustbench" / "cifar10" / "Linf" / "Rice2020Overfitting.pt"
    assert source.weights.read_bytes() == b"weights"
    recorded = source.weights.with_name("Rice2020Overfitting.pt.sha256").read_text().strip()
    assert recorded == hashlib.sha256(b"weights").hexdigest()
    assert (source.label, source.norm, source.eps) == ("Rice2020Overfitting", "linf", "8/255")
    assert source.model["std"] == [0.2471, 0.2435, 0.2616]
    resolve("robustbench:Rice2020Overfitting", request)
    assert site.ranges == [None]
    source.weights.write_bytes(b"others")
    with pytest.raises(UserError, match="has changed since it was downloaded"):
        resolve("robustbench:Rice2020Overfitting", request)


def test_a_web_page_is_no_file_of_weights(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.content, site.kind = b"<html>quota exceeded</html>", "text/html; charset=utf-8"
    monkeypatch.setattr(named, "address", lambda file: site.url)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match="the server sent a web page; try again, or download it yourself"):
        resolve("robustbench:Rice2020Overfitting", wanted(shape=[3, 32, 32]))
    assert not list(tmp_path.rglob("*.p*t"))
    site.kind = None


def test_the_files_of_an_ensemble_are_joined_and_a_mirror_is_asked_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    monkeypatch.setenv("DKL_MIRROR", str(tmp_path / "mirror"))
    arguments = {"blocks": [1, 1, 1, 1], "widths": [8, 8, 8, 8]}
    whole = create_model("cifar_resnet50_ensemble", 10, **arguments).eval()
    for number, member in enumerate(whole.models):
        file = tmp_path / "mirror" / "robustbench" / "cifar10" / "Linf" / f"Chen2020Adversarial.pt_m{number}.pt"
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state_dict": {f"module.{key}": value for key, value in member.state_dict().items()}}, file)
    source = resolve("robustbench:Chen2020Adversarial", wanted(shape=[3, 32, 32], arguments=arguments))
    loaded = create_model(**{k: v for k, v in source.model.items() if k not in ("_target_", "mean", "std")}).eval()
    load_checkpoint(loaded, source.weights)
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded(x), whole(x))
    torch.testing.assert_close(whole(x).sum(1), torch.ones(2))


def test_a_published_network_is_a_teacher_by_its_name(tmp_path: Path) -> None:
    model = create_model("wrn34_10", 10)
    torch.save({"state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}}, tmp_path / "w.pt")
    teacher = create_teacher("official:ikl-at-cifar10", 10, checkpoint=str(tmp_path / "w.pt"))
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), model.parameters(), strict=True))
    with pytest.raises(UserError, match=r"needs mean=\[0.5"):
        create_teacher("official:ikl-at-cifar10", 10, 3, [0.5] * 3, [0.5] * 3, checkpoint=str(tmp_path / "w.pt"))
    with pytest.raises(UserError, match="did you mean ikl-at-cifar10"):
        create_teacher("official:ikl-at-cifar1o", 10)
