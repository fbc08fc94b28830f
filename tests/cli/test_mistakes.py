"""Every mistake of the user ends with status 2 and a message that says how to fix it, before anything is written."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dkl.cli.main import COMMANDS
from tests.cli.common import call

MISTAKES = {
    "train loss=nope": ["there is no choice loss=nope", "hoose one of", "ikl", "gkl", "kl", "dkl"],
    "train loss.wsme_weight=1": ["loss.wsme_weight", "loss.wmse_weight"],
    "train attack.eps=-0.1": ["attack.eps", "-0.1"],
    "train trainer.batch_size=0": ["trainer.batch_size=0", "from 1"],
    "train trainer.device=cuda:99": ["cuda:99", "cpu"],
    "train trainer.precision=fp16": ["fp16", "float32", "float64", "bf16"],
    "train model.foo=1": ["model.foo", "did you mean"],
    "train loss.wmse_weight=abc": ["wmse_weight='abc'", "number"],
    "train loss.wmse_weight=-1": ["wmse_weight=-1", "from 0"],
    "train loss=kd loss.standardize=true": ["loss.standardize", "+loss.standardize="],
    "train loss=kd_ls loss.logit_temperature=0": ["logit_temperature=0", "above 0"],
    "train loss=kd_ls loss.standardize=2": ["standardize=2", "true or false"],
    "train loss=wkd": ["WKD compares classes", "task=distillation"],
    "train loss=wkd loss.distances=logits": ["distances='logits'", "classifier", "features"],
    "train loss=wkd loss.smoothing=0.001": ["smoothing=0.001", "from 0.03"],
    "train loss.weighting=none": ["weighting='none'", "class", "sample"],
    "train task.prior_temperature=0": ["temperature", "above 0"],
    "train model=timm": ["model.name"],
    "train model=timm model.name=resnet1888": ["resnet1888", "resnet18"],
    "train model=timm model.name=resnet18 model.mean=[0.5]": ["model.mean", "model.std"],
    "train schedule=cos": ["schedule=cos", "cosine", "constant"],
    "train attack.norm=l3": ["attack.norm", "l3", "linf", "l2"],
    "train attack.schedule=nope": ["attack.schedule", "official", "as_intended", "fixed"],
    "train attack=official_kl +attack.steps=3": ["attack.schedule=fixed"],
    "train data=npz": ["data.num_classes"],
    "train task=classification loss=ikl": ["loss=none"],
    "train task=classification attack=pgd": ["attack=none"],
    "train loss=none": ["loss=ikl"],
    "train attack=none": ["attack=pgd"],
    "train recipe=nope": ["official", "quick"],
    "train logger=wandb logger.mode=nope": ["online", "offline"],
    "train budget=paper": ["recipe=official", "budget=own"],
    "train budget=paper recipe=official trainer.epochs=1": ["trainer.epochs=200", "budget=own"],
    "train budget=paper recipe=official model=wrn10_2": ["model.name=wrn34_10", "budget=own"],
    "train budget=paper recipe=official averaging=none": ["averaging.", "budget=own"],
    "train budget=paper recipe=official attack=pgd": ["attack.schedule=official", "budget=own"],
    "train budget=paper recipe=official attack.ramp=false": ["attack.ramp=True", "budget=own"],
    "train data=cifar10 data.augment.second_view=mixup": ["data.augment.second_view", "autoaugment"],
    "train data.augment.second_view=autoaugment": ["channels"],
    "train optimizer.momentum=0": ["optimizer.nesterov=false"],
    "train recipe=dm_1m data=cifar10": ["data=cifar10_1m"],
    "train recipe=official data=cifar10 attack=official_l2": ["evaluation.norm=l2", "evaluation.eps"],
    "train budget=paper recipe_name=mine": ["recipe=mine is not shipped", "budget=own"],
    "train -m hydra.sweeper=optuna seed=1,2": ["hydra/sweeper=optuna", "slash"],
    "reproduce experiment=mine.yaml": ["mine.yaml", "FILE.yaml", "quickstart"],
    "train optimizer.beta=1": ["optimizer.beta"],
    "train +model.foo=1": ["model: ", "argument 'foo': drop it with '~model.foo'", "are name, num_classes"],
    "train data.synthetic.files=[a.npz]": ["names 1 files", "between 0 and 1"],
    "train data.synthetic.fraction=0.5": ["names 0 files", "between 0 and 1"],
    "train data.synthetic={files:[a.npz],fraction:1.5}": ["data.synthetic.fraction=1.5", "[0, 1)"],
    "train budget=mini trainer.epochs=1": ["trainer.epochs=20", "budget=own"],
    "train evaluation.attacks=nope": ["standard", "apgd-ce", "pgd-K"],
    "train model=timm model.name=vit_tiny_patch16_224": ["vit_tiny_patch16_224", "[1, 8, 8]"],
    "evaluate checkpoint=x.pt model=small_cnn data=digits norm=l2": ["eps=0.5"],
    "train loss=kl,ikl": ["add -m"],
    "train -m loss=kl,nope": ["nope", "ikl"],
    "train -m loss=glob(nope*)": ["loss=glob(nope*) matches nothing", "choose one of", "ikl"],
    "train -m seed=glob(*)": ["seed=glob(*) matches nothing", "list the values"],
    "train data.num_classes=5": ["data.num_classes=5", "data.num_classes=10"],
    "train data.shape=[3,8,8]": ["data.shape=[1, 8, 8]"],
    "train data.train_size=5000": ["5000", "1442", "data.train_size"],
    "train data=cifar10 data.source.download=false paths.data=nowhere": ["nowhere", "train.npz", "DKL_DATA_DIR"],
    "evaluate": ["run=FOLDER", "checkpoint=FILE"],
    "evaluate run=a checkpoint=b": ["run=FOLDER", "checkpoint=FILE"],
    "evaluate run=missing": ["run=missing", "config.yaml", "dkl train"],
    "evaluate checkpoint=x.pt data=digits": ["no checkpoint at x.pt"],
    "evaluate checkpoint=x.pt model=small_cnn data=digits": ["x.pt", "no checkpoint"],
    "evaluate checkpoint=x.pt model=small_cnn data=digits attacks=nope": ["attacks=nope", "standard", "apgd-ce"],
    "evaluate checkpoint=x.pt model=small_cnn data=digits norm=l3": ["linf, l2", "l3"],
    "evaluate checkpoint=x.pt model=small_cnn data=digits eps=8": ["eps=8", "8/255"],
    "evaluate checkpoint=x.pt model=small_cnn data=digits n=0": ["from 1"],
    "evaluate nope=1": ["nope", "--help"],
    "evaluate run=a data=cifar100": ["data and model", "leave them out"],
    "evaluate run=a data.test_size=20": ["data and model", "leave them out"],
    "evaluate run=a model=wrn34_10": ["data and model", "leave them out"],
    "reproduce experiment=nope": ["nope", "quickstart"],
    "reproduce row=nope": ["nope", "TRADES", "IKL-AT"],
    "reproduce seed=x": ["seed=x", "0,1,2"],
    "reproduce budget=nope": ["nope", "smoke", "mini", "paper"],
    "reproduce trainer.epoch=3": ["trainer.epoch", "trainer.epochs"],
    "reproduce quickstart": ["quickstart", "KEY=VALUE"],
    "reproduce table=2 experiment=quickstart": ["give one"],
    "reproduce table=two": ["number of a table"],
    "reproduce dry_run=yes": ["dry_run=yes", "true or false"],
    "tables smoke=maybe": ["smoke=maybe", "true or false"],
    "tables nope=1": ["nope", "results", "smoke"],
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty directory, where results would be written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DKL_RESULTS_DIR", raising=False)
    monkeypatch.delenv("DKL_DATA_DIR", raising=False)


NEEDS_DATA = ("data.num_classes=5", "data.shape=", "data.train_size=5000", "paths.data=nowhere")


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_ends_with_2_and_says_how_to_fix_it(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = call(capsys, *line.split())
    assert ended.status == 2, ended
    assert ended.err.startswith("error: ")
    assert ended.out == ""
    for part in MISTAKES[line]:
        assert part in ended.err
    assert "Traceback" not in ended.err
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    if any(part in line for part in NEEDS_DATA):
        assert {path.name for path in left} <= {".lock"}
    else:
        assert list(tmp_path.iterdir()) == []


def test_a_library_that_cannot_be_loaded_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(path: str) -> Callable[[list[str]], None]:
        def command(arguments: list[str]) -> None:
            raise ImportError("libtorch_cpu.so: failed to map segment from shared object", path=path)

        return command

    monkeypatch.setitem(COMMANDS, "train", fails("torch/_C.so"))
    ended = call(capsys, "train")
    assert ended.status == 2
    assert ended.err.startswith("error: libtorch_cpu.so: failed to map segment")
    assert len(ended.err.splitlines()) == 1
    monkeypatch.setitem(COMMANDS, "train", fails("dkl/tasks/__init__.py"))  # a defect, not the machine's
    with pytest.raises(ImportError):
        call(capsys, "train")
