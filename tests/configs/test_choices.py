"""Every choice composes with the defaults and says why it exists; all can run."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from dkl.assembly import build_task, preflight
from dkl.config import compose_config
from dkl.errors import NotInstalledError
from dkl.models import create_model
from dkl.tasks import Classification, TradesTraining
from tests.configs.common import CHOICES, CONFIGS, names, overrides, reason


def flat(cfg: DictConfig, resolve: bool = True) -> dict[str, Any]:
    """Every leaf of a configuration by its dotted name, resolved or as it is written; lists are leaves."""

    def leaves(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in node.items():
            if isinstance(value, dict) and value:
                yield from leaves(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    return dict(leaves(OmegaConf.to_container(cfg, resolve=resolve, enum_to_str=True), ""))


def changed(base: list[str], other: list[str]) -> dict[str, Any]:
    """The leaves in which a configuration differs from another, with their new values."""
    one, two = flat(compose_config("train", base)), flat(compose_config("train", other))
    assert one.keys() == two.keys()
    return {name: value for name, value in two.items() if one[name] != value}


@pytest.mark.slow(minutes=0.01)
@pytest.mark.parametrize(("group", "choice"), CHOICES, ids=map("=".join, CHOICES))
def test_every_choice_composes_with_the_defaults_and_can_run(group: str, choice: str, tmp_path: Path) -> None:
    cfg = compose_config("train", overrides(group, choice))
    for key in {"teacher", "natural_teacher"} & cfg.task.keys():  # any weights that fit will do
        teacher = create_model(cfg.task[key].name, cfg.data.num_classes, cfg.data.shape[0])
        torch.save(teacher.state_dict(), tmp_path / "teacher.pt")
        cfg.task[key].checkpoint = str(tmp_path / "teacher.pt")
    try:
        preflight(cfg)
    except NotInstalledError as error:
        pytest.skip(str(error))
    OmegaConf.to_container(cfg, resolve=True)
    if group in ("data", "model", "budget"):
        name = re.sub(r"_(\d+m|shards)$", "", choice)  # cifar10_1m is CIFAR-10 and more, shards hold the same images
        assert cfg[group].name == {"timm": "resnet18", "resnet50_drop_path": "resnet50"}.get(name, name)


@pytest.mark.parametrize(
    "path", sorted([*CONFIGS.rglob("*.yaml"), *CONFIGS.parent.glob("experiments/*.yaml")]), ids=lambda path: path.stem
)
def test_every_file_opens_with_the_reason_why_it_exists(path: Path) -> None:
    assert len(reason(path)) >= 20
    assert len(path.read_text().splitlines()[0]) <= 120


@pytest.mark.parametrize("model", sorted(set(names("model")) - {"timm"}))
def test_parameter_counts_in_the_reasons_are_true(model: str) -> None:
    data = "digits" if model == "small_cnn" else "cifar10"
    name = OmegaConf.load(CONFIGS / "model" / f"{model}.yaml").name
    with torch.device("meta"):
        network = create_model(name, num_classes=10, in_chans=1 if data == "digits" else 3)
    count = sum(parameter.numel() for parameter in network.parameters())
    text = reason(CONFIGS / "model" / f"{model}.yaml")
    found = re.search(r"(\d+)(?:\.(\d+))? (M|thousand) parameters", text)
    assert found, text
    unit = {"M": 1e6, "thousand": 1e3}[found[3]]
    assert float(f"{found[1]}.{found[2] or 0}") == round(count / unit, len(found[2] or ""))


def test_losses_and_tasks_are_the_classes_their_names_say() -> None:
    for name in set(names("loss")) - {"none"}:
        cfg = compose_config("train", [f"loss={name}"])
        task = build_task(cfg.task, torch.nn.Linear(1, 1))
        assert isinstance(task, TradesTraining)
        assert cfg.loss._target_ == f"dkl.losses.{type(task.loss).__name__}"
        assert name.replace("_", "").startswith(type(task.loss).__name__.lower())
    task = build_task(compose_config("train", ["task=classification"]).task, torch.nn.Linear(1, 1))
    assert isinstance(task, Classification)


def test_what_follows_the_data_and_the_seed_does() -> None:
    cfg = compose_config("train", ["data=npz", "data.num_classes=7", "data.shape=[1,9,9]", "data.eps=0.2", "seed=5"])
    assert (cfg.model.num_classes, cfg.model.in_chans) == (7, 1)
    assert (cfg.task.num_classes, cfg.task.seed, cfg.attack.eps) == (7, 5, "0.2")


def test_data_and_results_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DKL_DATA_DIR", "/some/data")
    monkeypatch.setenv("DKL_RESULTS_DIR", "/some/results")
    for root in ("train", "evaluate"):
        cfg = compose_config(root, ["data=cifar10"])
        assert (cfg.paths.data, cfg.paths.results) == ("/some/data", "/some/results")
        assert cfg.data.source.root == "/some/data"
    monkeypatch.delenv("DKL_DATA_DIR")
    monkeypatch.delenv("DKL_RESULTS_DIR")
    assert dict(compose_config("train", []).paths) == {"data": "data", "results": "results"}


def test_digits_and_cifar_have_the_shapes_their_sources_have() -> None:
    digits = compose_config("train", []).data
    assert (list(digits.shape), digits.num_classes) == ([1, 8, 8], 10)
    for name, classes in (("cifar10", 10), ("cifar100", 100)):
        cfg = compose_config("train", [f"data={name}"]).data
        assert (list(cfg.shape), cfg.num_classes, cfg.eps) == ([3, 32, 32], classes, "8/255")
        changing = {key: value for key, value in cfg.augment.items() if value}
        padded = {"crop_padding": 4, "crop_fill": "zeros", "flip": True, "repeats": 1}
        assert changing == {**padded, "interpolation": "bilinear"}
        assert cfg.source.name == name


@pytest.mark.parametrize("budget", sorted(set(names("budget")) - {"own"}))
def test_a_budget_changes_only_what_it_says(budget: str) -> None:
    content = OmegaConf.load(CONFIGS / "budget" / f"{budget}.yaml")
    assert isinstance(content, DictConfig)
    model = [item["override /model"] for item in content.pop("defaults", [])]
    allowed = flat(content, resolve=False) | ({"model.name": model[0]} if model else {})
    given = ["data=cifar10", "recipe=official"]
    one, two = (
        flat(compose_config("train", choice), resolve=False) for choice in (given, [*given, f"budget={budget}"])
    )
    different = {key for key in one.keys() | two.keys() if one.get(key) != two.get(key)}
    assert two["budget.name"] == budget
    for key in different - {"budget.source", "model.title"}:  # the title follows the model
        (value,) = (value for name, value in allowed.items() if f"{key}.".startswith(f"{name}."))
        assert two.get(key, value) == value


def test_the_paper_budget_takes_every_image_and_autoattack() -> None:
    assert changed([], ["budget=paper"]) == {"budget.name": "paper"}
    cfg = compose_config("train", ["budget=paper"])
    assert (cfg.data.train_size, cfg.data.test_size, cfg.evaluation.n) == (None, None, None)
    assert cfg.evaluation.attacks == "standard"


def test_the_command_line_wins_over_a_budget() -> None:
    cfg = compose_config("train", ["budget=mini", "model=wrn10_2", "trainer.epochs=3", "data.train_size=50"])
    assert (cfg.model.name, cfg.trainer.epochs, cfg.data.train_size) == ("wrn10_2", 3, 50)
