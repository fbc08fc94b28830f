"""A row's identity covers what is trained, and neither the machine nor the folders."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dkl.assembly import preflight
from dkl.config import (
    ComposedRun,
    changed_setting,
    check,
    compose_config,
    hashed,
    load_config,
    model_name,
    row_identity,
    run_folder,
)
from dkl.config.identity import config_hash, label
from dkl.config.schema import DataConfig, TrainConfig
from dkl.errors import UserError

ROW = ["data=cifar100", "recipe=kd_cifar", "model=cifar_resnet8", "loss=ikl_kd", "task.teacher.name=cifar_resnet20"]
TAUGHT = [*ROW, "task.teacher.run=results/runs/a"]


def identity(*overrides: str) -> str:
    return row_identity(hashed(compose_config("train", [*TAUGHT, *overrides])))


@pytest.mark.parametrize(
    "other",
    [
        "seed=3",
        "trainer.devices=4",
        "trainer.accumulate=2",
        "trainer.precision=bf16",
        "trainer.workers=3",
        "paths.results=elsewhere",
        "data.source.root=/another/disk",
        "task.teacher.run=elsewhere/runs/b",
        "label=mine",
    ],
)
def test_where_and_how_is_not_what(other: str) -> None:
    assert identity(other) == identity()


def test_an_optimizer_is_named_by_what_it_uses() -> None:
    own = "optimizer._target_=torch.optim.NAdam"
    assert identity("optimizer.name=adamw") == identity("optimizer.name=adamw", "optimizer.nesterov=true")
    assert identity(own) == identity(own, "optimizer.name=lamb", "optimizer.momentum=0.5")
    rows = [[], ["optimizer.name=adamw"], [own], [own, "optimizer.arguments.betas=[0.9,0.98]"]]
    assert len({identity(*row) for row in rows}) == 4


def test_the_same_images_in_another_form_are_the_same() -> None:
    files, shards = ([f"data={name}", *TAUGHT[1:]] for name in ("imagenet", "imagenet_shards"))
    one, other = (compose_config("train", overrides) for overrides in (files, shards))
    assert row_identity(hashed(one)) == row_identity(hashed(other)) != identity()
    assert config_hash(one) != config_hash(other)


@pytest.mark.parametrize(
    ("own", "sources"),
    [
        (["data=npz", "data.num_classes=10"], ["data.source.train=a.npz", "data.source.train=b.npz"]),
        (
            ["data.name=bars", "data.source._target_=my_package.bars"],
            ["+data.source.noise=0.5", "+data.source.noise=0.7"],
        ),
    ],
    ids=["npz", "bars"],
)
def test_rows_of_your_own_images_differ_by_their_source(own: list[str], sources: list[str]) -> None:
    one, other = (compose_config("train", [*own, "loss=kl", source]) for source in sources)
    assert row_identity(hashed(one)) != row_identity(hashed(other))


@pytest.mark.parametrize(
    "other",
    [
        "optimizer.lr=0.1",
        "trainer.epochs=100",
        "trainer.batch_size=32",
        "loss.wmse_weight=2",
        "task.ce_weight=0.5",
        "data.train_size=5000",
        "data.augment.flip=false",
        "data.mean=[0.5,0.5,0.5]",
        "task.teacher.name=cifar_resnet56",
        "model=cifar_resnet14",
        "budget=mini",
        "task.warmup_epochs=3",
    ],
)
def test_what_is_trained_is(other: str) -> None:
    assert identity(other) != identity()


def test_parts_of_batch_norm_are_as_many_devices_but_for_two_views() -> None:
    def named(*overrides: str) -> str:
        return config_hash(compose_config("train", ["recipe=official", *overrides]))

    views = "data.augment.second_view=cutout"
    assert named("trainer.devices=2") == named() == named("trainer.batch_norm_share=null", "trainer.devices=4")
    assert named("trainer.batch_norm_share=1") == named("trainer.batch_norm_share=null") != named()
    # On a device each of four parts has one view; four devices without shares would mix the views.
    assert named(views, "trainer.devices=2") == named(views) != named(views, "trainer.batch_norm_share=null")
    assert named(views) != named(views, "trainer.batch_norm_share=null", "trainer.devices=4")


def test_a_record_of_before_a_key_came_is_known_by_the_rows_after() -> None:
    training = hashed(compose_config("train", TAUGHT))
    for group, key in (("trainer", "accumulate"), ("optimizer", "no_decay"), ("optimizer", "name")):
        training[group].pop(key)
    training["data"]["augment"].pop("repeats")
    training["budget"].pop("source")
    assert row_identity(training) == identity()


def test_a_key_that_comes_renames_no_run() -> None:
    cfg = compose_config("train", TAUGHT)
    younger = OmegaConf.create(OmegaConf.to_container(cfg, enum_to_str=True))
    for group, key in (("trainer", "accumulate"), ("data.augment", "repeats"), ("budget", "source")):
        OmegaConf.select(younger, group).pop(key)
    assert config_hash(younger) == config_hash(cfg)
    assert row_identity(hashed(younger)) == row_identity(hashed(cfg))
    other = compose_config("train", [*TAUGHT, "trainer.accumulate=2"])
    assert config_hash(other) != config_hash(cfg)


def test_typed_defaults_are_those_that_named_the_runs_of_before() -> None:
    """May grow, must never change: a default is not part of a run's name."""
    root = OmegaConf.structured(TrainConfig(data=DataConfig()))
    now = OmegaConf.to_container(root, enum_to_str=True)
    before = OmegaConf.to_container(OmegaConf.load(Path(__file__).with_name("defaults.yaml")))
    assert OmegaConf.to_container(OmegaConf.merge(OmegaConf.create(now), before)) == now


def test_a_run_of_before_a_key_came_is_read_with_its_default(tmp_path: Path) -> None:
    cfg = compose_config("train", TAUGHT)
    content = OmegaConf.to_container(cfg, enum_to_str=True)
    del content["trainer"]["accumulate"]  # type: ignore[index,union-attr]  # a nested dictionary
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(content))
    assert load_config(tmp_path) == cfg
    (tmp_path / "config.yaml").write_text("trainer: {epochs\n")
    with pytest.raises(UserError, match=r"config\.yaml is not of this version"):
        load_config(tmp_path)
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(content) + "gone: 1\n")
    with pytest.raises(UserError, match=r"config\.yaml has keys that do not exist, 'gone'"):
        load_config(tmp_path)


def test_keys_that_training_ignored_are_no_other_run() -> None:
    trained, now = ({**hashed(compose_config("train", TAUGHT)), "paths": {}} for _ in range(2))
    trained["optimizer"] |= {"betas": [0.9, 0.98], "amsgrad": {"on": True}}
    trained["data"]["augment"]["mixup"] = 0.5
    assert changed_setting(trained, now) is changed_setting(now, trained) is None
    assert changed_setting(trained | {"seed": 7}, now) == "seed=7, not 0"


@pytest.mark.parametrize(("epochs", "expected"), [(240, 20), (480, 20), (20, 2), (12, 1), (2, 1)])
def test_the_warm_up_is_twenty_epochs_of_240_and_as_much_of_fewer(epochs: int, expected: int) -> None:
    assert compose_config("train", [*TAUGHT, f"trainer.epochs={epochs}"]).task.warmup_epochs == expected


def test_imagenet_warms_up_for_an_epoch_unless_a_row_has_it_otherwise() -> None:
    overrides = ["data=imagenet", "recipe=kd_imagenet", "model=resnet18", "loss=ikl_kd", "budget=paper", *TAUGHT[-2:]]
    assert compose_config("train", overrides).task.warmup_epochs == 1
    check(compose_config("train", [*overrides, "task.warmup_epochs=5", "trainer.workers=16"]))


@pytest.mark.parametrize("given", ["run={}", "checkpoint={}/checkpoint.pt"])
def test_a_teacher_of_another_budget_is_refused(given: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("budget: {name: mini}\n")
    cfg = compose_config("train", [*ROW, f"task.teacher.{given.format(tmp_path)}", "budget=paper"])
    with pytest.raises(UserError, match=r"budget=mini.*budget=paper"):
        preflight(cfg)


def test_a_long_tail_is_not_cut() -> None:
    overrides = ["data=imagenet_lt", "recipe=kd_imagenet_lt_teacher", "model=resnet18", "data.train_size=100"]
    with pytest.raises(UserError, match=r"data\.train_size=100.*long tail"):
        preflight(compose_config("train", overrides))


def test_a_model_without_a_name_is_called_as_its_function() -> None:
    cfg = compose_config("train", ["model._target_=my_package.nets.my_net"])
    cfg.model = {key: value for key, value in cfg.model.items() if key != "name"}
    assert model_name(cfg.model) == "my_net"
    assert "-my_net-" in run_folder(cfg).name


def test_a_display_name_is_not_part_of_the_hash() -> None:
    assert config_hash(compose_config("train", ["model.title=Small"])) == config_hash(compose_config("train", []))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["loss=ikl"], "IKL-AT"),
        (["loss=ikl", "label=Mine"], "Mine"),
        (["task=distillation", "loss=ikl_kd", "task.teacher.name=small_cnn"], "IKL"),
        (["task=distillation", "loss=kd_ls", "task.teacher.name=small_cnn"], "KD + LS"),
        (["loss=ikl", "+loss.standardize=true"], "IKL-AT + LS"),
        (["task=classification"], "CE"),
        (["task=pgd_at"], "PGD-AT"),
    ],
    ids=" ".join,
)
def test_a_method_is_called_by_its_loss_and_whether_it_attacks(overrides: list[str], expected: str) -> None:
    assert label(compose_config("train", overrides)) == expected


@pytest.mark.parametrize("name", ["Dropbox (MIT)", "a,b", "O'Brien", "a=b", "[x]"])
def test_a_results_folder_of_any_name_reaches_the_evaluation(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DKL_RESULTS_DIR", str(tmp_path / name))
    run = ComposedRun(compose_config("train", ["data=digits"]))
    cfg = run.evaluation(["attacks=none"])
    assert (cfg.run, cfg.paths.results) == (str(run.folder), str(tmp_path / name))
