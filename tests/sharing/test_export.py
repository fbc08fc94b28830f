"""An exported network comes back with equal logits: by timm, by RobustBench's way of loading, by torch and by dkl."""

import dataclasses
import json
import re
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
import yaml
from huggingface_hub import constants
from torch import Tensor, nn

import dkl
from dkl.cli import main
from dkl.errors import UserError
from dkl.models.networks.wide_resnet import SwishWideResNet, WideResNet
from dkl.records import Bound
from dkl.sharing import export, load_model
from dkl.sharing.export import push
from dkl.sharing.exported import model_card, read_run
from tests.evaluation.common import evaluate_run, only_record, tiny_run
from tests.factories import make_record
from tests.sharing.fake_hub import Hub, serve

X = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with the run of a network that normalizes its input, and its record."""
    folder = tmp_path_factory.mktemp("results")
    size = ["model.mean=[0.3]", "model.std=[0.5]", "data.train_size=60", "trainer.epochs=1"]
    run = tiny_run(folder, "model=wrn10_2_swish", *size)
    evaluate_run(run, folder, "attacks=pgd-2")
    return folder


@pytest.fixture(scope="module")
def run(results: Path) -> Path:
    (found,) = (results / "runs").glob("digits-*")
    return found


@pytest.fixture(scope="module")
def logits(run: Path) -> Tensor:
    """The run's logits for ``X``."""
    with torch.no_grad():
        found: Tensor = dkl.load_model(run)(X)
    return found


def test_a_folder_loads_back_by_timm_and_by_dkl(results: Path, run: Path, logits: Tensor, tmp_path: Path) -> None:
    main(["export", f"run={run}", f"to={tmp_path / 'mine'}", f"results={results}"])
    config = json.loads((tmp_path / "mine" / "config.json").read_text())["pretrained_cfg"]
    model = timm.create_model(f"local-dir:{tmp_path / 'mine'}", pretrained=True).eval()
    mean, std = torch.tensor(config["mean"]), torch.tensor(config["std"])
    assert torch.equal(model((X - mean) / std), logits)
    for name in (tmp_path / "mine", f"local-dir:{tmp_path / 'mine'}"):
        assert torch.equal(load_model(name)(X), logits)
    assert next(load_model(tmp_path / "mine", device=torch.device("meta")).parameters()).is_meta
    (tmp_path / "mine" / "model.safetensors").unlink()
    with pytest.raises(RuntimeError):  # timm looks for the file, and no random weights are returned
        timm.create_model(f"local-dir:{tmp_path / 'mine'}", pretrained=True)


def test_the_card_has_the_figures_of_the_record(results: Path, run: Path, tmp_path: Path) -> None:
    export(run, tmp_path, results=results)
    record, _ = only_record(results)
    _, metadata, text = (tmp_path / "README.md").read_text().split("---\n")
    (entry,) = yaml.safe_load(metadata)["model-index"]
    values = {item["name"]: item["value"] for result in entry["results"] for item in result["metrics"]}
    assert values["clean"] == pytest.approx(100 * record.clean, abs=0.005)
    assert values["pgd-2 (not AutoAttack), Linf 0.1"] == pytest.approx(100 * record.robust, abs=0.005)
    assert f"| clean | {record.n} | {100 * record.clean:.2f} |" in text
    assert record.checkpoint_sha256 in text
    of_another = tmp_path / "unmeasured" / ".eval_results" / "dkl.yaml"
    of_another.parent.mkdir(parents=True)
    of_another.write_text("- value: 56.73")
    export(run, tmp_path / "unmeasured", results=tmp_path)
    assert not of_another.exists()
    card = (tmp_path / "unmeasured" / "README.md").read_text()
    assert "Nothing was measured" in card
    assert "model-index" not in card
    assert not re.search(r"\d%|\d\.\d\d \|", card)


def test_the_card_keeps_intervals_and_parts_apart_from_autoattack(results: Path, run: Path) -> None:
    sampled = ("apgd-ce", "apgd-t", "sample-fab-t", "sample-square")
    bounded = make_record(attacks=list(sampled), robust=0.225, bound=Bound(low=0.175, high=0.225, tolerance=5.0))
    part = make_record(n=40, partial=True, robust=0.25)
    card = model_card(
        dataclasses.replace(read_run(run, weights=None, results=results), records=[bounded, part]), "folder"
    )
    _, metadata, text = card.split("---\n")
    (entry,) = yaml.safe_load(metadata)["model-index"]
    names = [item["name"] for result in entry["results"] for item in result["metrics"]]
    assert [name for name in names if "AutoAttack" in name] == ["AutoAttack on 40 images, Linf 8/255"]
    assert not any("sample" in name for name in names)
    assert "| bounded AutoAttack, Linf 8/255 | 1000 | within the interval | [17.50, 22.50] |" in text
    assert len([line for line in text.splitlines() if line.startswith("| clean |")]) == 1


def robustbench_load(path: Path, model: nn.Module) -> nn.Module:
    """RobustBench's ``load_model``, after it has built ``model``: strip substrings, load strictly, eval mode."""
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    for text in ("module.", "model."):
        state = OrderedDict((key[len(text) :] if text in key else key, value) for key, value in state.items())
    model.load_state_dict(state, strict=True)
    return model.eval()


class DeepMindNetwork(SwishWideResNet):
    """RobustBench's DMWideResNet: persistent buffers ``mean`` and ``std`` [C, 1, 1] normalize the input."""

    def __init__(self, channels: int) -> None:
        super().__init__(depth=10, widen_factor=2, in_chans=channels)
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - self.mean) / self.std)


def test_robustbench_loads_its_file(results: Path, run: Path, logits: Tensor, tmp_path: Path) -> None:
    weights, definition, *rest = export(run, tmp_path, format="robustbench", results=results)
    assert rest == []  # the record has no AutoAttack
    assert torch.equal(robustbench_load(weights, DeepMindNetwork(1))(X), logits)
    text = definition.read_text()
    assert "DMWideResNet(num_classes=10, depth=10, width=2, activation_fn=nn.SiLU, mean=(0.3,), std=(0.5,))" in text
    assert f"('{weights.stem}', {{" in text


def test_robustbench_loads_a_network_without_normalization(tmp_path: Path) -> None:
    l2 = ["evaluation.norm=l2", "evaluation.eps=0.5"]
    run = tiny_run(tmp_path, "model=wrn10_2", "data.train_size=60", "trainer.epochs=1", *l2)
    weights, definition = export(run, tmp_path / "out", format="robustbench", results=tmp_path)
    model = robustbench_load(weights, WideResNet(10, 2, in_chans=1))
    assert torch.equal(model(X), load_model(run)(X))
    text = definition.read_text()
    assert "WideResNet(depth=10, widen_factor=2, num_classes=10)" in text
    assert "# In the dictionary l2:" in text


def test_an_exported_program_holds_the_network(results: Path, run: Path, logits: Tensor, tmp_path: Path) -> None:
    program, card = export(run, tmp_path, format="torch", results=results)
    assert 'model.pt2", trust=True)' in card.read_text()
    for loaded in (load_model(program, trust=True), load_model(program, data="digits", trust=True)):
        torch.testing.assert_close(loaded(X), logits)


def test_an_onnx_file_holds_the_network(results: Path, run: Path, logits: Tensor, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnx.reference")
    (tmp_path / "model.onnx").write_bytes(b"of an earlier export")
    (tmp_path / "same").hardlink_to(tmp_path / "model.onnx")
    path, _ = export(run, tmp_path, format="onnx", results=results)
    assert (tmp_path / "same").read_bytes() == b"of an earlier export"  # replaced, not written in place
    (found,) = runtime.ReferenceEvaluator(str(path)).run(None, {"images": X.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("nothing", {}, "there is no network 'nothing'"),
        ("timm:wrn10_2", {}, "does not say its images: add data=NAME"),
        ("wrn10_2", {"data": "digits"}, "publishes no weights"),
        ("Cui2023Decoupled_WRN-34-10", {}, r"is a model of cifar10 and of cifar100: say which by data=…"),
        ("timm:wrn10_2", {"data": "digitz"}, "did you mean digits"),
    ],
)
def test_a_name_that_names_nothing_is_refused(name: str, given: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_model(name, **given)


def test_a_file_of_weights_needs_a_network(run: Path, logits: Tensor) -> None:
    with pytest.raises(UserError, match=r"is a file of weights: load_model\('timm:NAME', checkpoint="):
        load_model(run / "checkpoint.pt")
    model = load_model("timm:wrn10_2_swish", checkpoint=run / "checkpoint.pt", data="digits", mean=[0.3], std=[0.5])
    assert torch.equal(model(X), logits)
    assert not model.training


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, an empty cache, and no token."""
    with serve() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        addresses = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", addresses)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        yield running


def test_what_is_pushed_to_a_hub_comes_back_by_its_id(
    hub: Hub, results: Path, run: Path, logits: Tensor, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("not written by the export")
    main(["export", f"run={run}", f"to={tmp_path / 'out'}", f"results={results}", "push=user/name"])
    assert set(hub.files) == {f"user/name/{file}" for file in ("README.md", "config.json", "model.safetensors")}
    assert torch.equal(load_model("user/name")(X), logits)
    asked = len(hub.requests)
    assert torch.equal(load_model("hf-hub:user/name")(X), logits)
    assert len(hub.requests) == asked, "the cache has both files"
    with pytest.raises(UserError, match=r"hf-hub:user/other: the hub has no config\.json"):
        load_model("user/other")


def test_a_hub_that_refuses_is_reported_in_one_line(hub: Hub, tmp_path: Path) -> None:
    hub.refuse = True
    with pytest.raises(UserError, match=r"push=user/name: .*log in by hf auth login") as refused:
        push(tmp_path, [], "user/name")
    assert "\n" not in str(refused.value)
