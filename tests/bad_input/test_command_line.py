"""Commands, flags, Hydra's syntax, keys, choices, types and values of the command line."""

from pathlib import Path

import pytest

from tests.bad_input.conftest import Refuse

COMMANDS = {
    "trian": "'trian' | did you mean train?",
    "eval": "'eval' | did you mean evaluate?",
    "-x": "'-x' | train, evaluate, reproduce, tables, runs",
    "reproduce-all": "'reproduce-all' | did you mean reproduce?",
}

FLAGS = {
    "train --lr 0.1": "no flag '--lr' | --help lists the keys",
    "train -x": "no flag '-x' | --hydra-help",
    "train -m seed=0,1 --cfg job": "give one of -m, --cfg",
    "train --config-name=other": "--config-dir FOLDER",
    "train --config-dir=missing": "--config-dir missing | no such folder",
    "train --config-dir=. hydra.searchpath=[file://.]": "give one of them",
    "train --cfg": "--cfg | expected one argument",
    "train --cfg everything": "--cfg | 'everything' | 'job'",
    "train -sc": "install=SHELL | bash, zsh, fish",
    "train -sc installbash": "'installbash' | KEY=VALUE",
    "evaluate --attack pgd": "no flag '--attack' | dkl evaluate --help",
    "evaluate checkpoint": "'checkpoint' | KEY=VALUE",
    "train -m hydra.sweeper=optuna seed=1,2": "hydra/sweeper=optuna | slash",
}

SYNTAX = {
    "train ikl": "'ikl' | KEY=VALUE",
    "train loss ikl": "'loss' | KEY=VALUE",
    "train =1": "'=1' has no key",
    "train ==": "quotes",
    "train label=a,b:c=d": """label='a,b:c=d'""",
    "train loss=[": "loss=[ | quotes",
    "train loss=[ikl": "loss='[ikl'",
    "train label=a=b": "label='a=b'",
    "train ~": "'~' has no key",
    "train +": "'+' | KEY=VALUE",
    "train @a=1": "'@a=1' has no key",
    "train 'seed=interval(0,1)'": "is an interval | hydra/sweeper=optuna",
    "train -m hydra/sweeper=optuna 'optimizer.lr=interval(0.2,0.1)'": "is empty | interval(0.1,0.2)",
    "train 'seed=range(1)'": "add -m",
    "train label=Größe-π": "quotes | label='Größe-π'",
    "train seed=1,": "seed='1,'",
    "train 'seed=foo(1)'": "seed='foo(1)'",
    "train seed.=1": "'seed.=1' | KEY=VALUE",
    "train hydra.searchpath=[file:///missing]": "there is no folder /missing",
    "evaluate attacks=[pgd": "attacks='[pgd'",
}

KEYS = {
    "train los=ikl": "'los' | did you mean loss?",
    "train epochs=3": "'epochs' | did you mean trainer.epochs?",
    "train trainer.epohcs=2": "'trainer.epohcs' | did you mean trainer.epochs?",
    "train loss.alpha=1": "'loss.alpha' | wmse_weight, ce_weight",
    "train averaging.decay=0.9": "averaging is none here | averaging=ema",
    "train logger.mode=online": "logger is none here | logger=wandb",
    "train ~nope": "'nope' | --help",
    "train ~trainer": "trainer cannot be removed | leave out ~trainer",
    "train ~label": "~label: label is null | leave it out",
    "train ~trainer.epochs": "trainer.epochs cannot be removed",
    "train +loss=ikl": "loss=NAME without +",
    "train loss=": "loss= | choose one of | ikl",
    "train loss=null": "loss=null | takes a name",
    "train loss=[dkl,ikl]": "loss takes one name | -m loss=dkl,ikl",
    "train model=wrn-34-10": "did you mean wrn34_10",
    "train optimizer.betas=[0.9,0.98]": "no key 'optimizer.betas' | write optimizer.arguments.betas=",
    "train +data.augment.flop=0.5": "no key 'data.augment.flop' | did you mean flip?",
    "train +seed=2": "seed exists | write seed=2",
    "train trainer.device=gpu": "device=gpu is not a device | auto, cpu or cuda",
    "train seed=1.5": "seed=1.5 | whole number",
    "train trainer.epochs=null": "trainer.epochs needs a value",
    "train trainer=fast": "trainer.KEY=VALUE",
    "train optimizer.nesterov=maybe": "optimizer.nesterov | true or false",
    "train optimizer.name=adamw2": "did you mean adamw | sgd",
    "train data.mean=0.5": "data.mean must be a list",
    "train seed='${nope}'": "no key 'nope'",
    "train hydra/launcher=slurm": "hydra/launcher=slurm | submitit_slurm",
    "train -m hydra/sweeper=optuna hydra.sweeper.n_trials=0": "hydra.sweeper.n_trials=0 must be at least 1",
    "train -m hydra/sweeper=optuna 'hydra.sweeper.n_trials=${oc.env:NOPE}'": "n_trials | NOPE",
    "train model.foo=1": "model.foo | did you mean",
    "train +model.foo=1": "model: | argument 'foo': drop it with '~model.foo' | are name, num_classes",
    "train loss=kd loss.standardize=true": "loss.standardize | +loss.standardize=",
    "train recipe=official data=cifar10 attack=official_l2": "evaluation.norm=l2 | evaluation.eps",
    "train -m loss=kl,nope": "nope | ikl",
    "train -m loss=glob(nope*)": "loss=glob(nope*) matches nothing | choose one of | ikl",
    "train -m seed=glob(*)": "seed=glob(*) matches nothing | list the values",
    "evaluate": "run=FOLDER | checkpoint=FILE",
    "evaluate run=a checkpoint=b": "run=FOLDER | checkpoint=FILE",
    "evaluate run=missing": "run=missing | config.yaml | dkl train",
    "evaluate run=a data.test_size=20": "data and model | leave them out",
}

VALUES = {
    "train data.name=a/b": "data.name='a/b' | letters, digits",
    "train label=": "label='' | 1 to 100 bytes",
    "train data.shape=[8,8]": "data.shape=[8, 8] | channels, height, width",
    "train model.num_classes=5": "model.num_classes=5 | leave model.num_classes alone",
    "train task=lbgat task.guide.num_classes=1": "task.guide.num_classes=1 | leave task.guide.num_classes alone",
    "train trainer.devices=999": "trainer.devices=999",
    "train trainer.batch_size=2 trainer.devices=3": "trainer.devices=3 | a batch of 2 into 3 parts",
    "train budget.name=tiny": "budget.name=tiny: choose one of mini, own, paper, smoke",
    "train attack.objective=kl": "attack.objective=kl must hold a _target_",
    "train attack.objective._target_=dkl.losses.Nope": "attack.objective: there is no dkl.losses.Nope to import",
    "train data.test_size=40 evaluation.n=50": "evaluation.n=50 is more than data.test_size=40",
    "train data.source._target_=nope.x": "there is no nope.x to import",
    "train attack.eps=300": "attack.eps=300 | 8/255",
    "train attack.eps=8/255/2": "attack.eps='8/255/2' | fraction",
    "train evaluation.precision=fp16": "evaluation.precision=fp16 must be float32 or bf16",
    "train recipe=kd_cifar task.teacher=runs/NAME": "task.teacher=runs/NAME | task.teacher.run=FOLDER",
    "train task.awp=0.005": "task.awp=0.005 | task.awp.gamma=0.005",
    "train paths.results='${oc.env:NOT_SET}'": "paths.results | 'NOT_SET'",
    "train paths.results=bad/weights/text.pt": "bad/weights/text.pt is a file",
    "train trainer.device=cuda:99": "cuda:99 | cpu",
    "train trainer.precision=fp16": "fp16 | float32 | float64 | bf16",
    "train evaluation.attacks=nope": "standard | apgd-ce | pgd-K",
}

PARTS = {
    "train task=classification loss=ikl": "loss=none",
    "train task=classification attack=pgd": "attack=none",
    "train loss=none": "loss=ikl",
    "train attack=none": "attack=pgd",
    "train attack=official_kl +attack.steps=3": "attack.schedule=fixed",
    "train loss=wkd": "WKD compares classes | task=distillation",
    "train loss=wkd loss.distances=logits": "distances='logits' | classifier | features",
    "train model=timm": "model.name",
    "train model=timm model.name=resnet1888": "resnet1888 | resnet18",
    "train model=timm model.name=vit_tiny_patch16_224": "vit_tiny_patch16_224 | [1, 8, 8]",
    "train data=npz": "data.num_classes",
    "train data=cifar10 data.augment.second_view=mixup": "data.augment.second_view | autoaugment",
    "train data.augment.second_view=autoaugment": "channels",
    "train optimizer.momentum=0": "optimizer.nesterov=false",
    "train recipe=dm_1m data=cifar10": "data=cifar10_1m",
    "train data.synthetic.files=[a.npz]": "names 1 files | between 0 and 1",
    "train data.synthetic.fraction=0.5": "names 0 files | between 0 and 1",
    "train logger=wandb logger.mode=nope": "online | offline",
    "train budget=paper": "recipe=official | budget=own",
    "train budget=paper recipe_name=mine": "recipe=mine is not shipped | budget=own",
    "train budget=paper recipe=official trainer.epochs=1": "trainer.epochs=200 | budget=own",
    "train budget=paper recipe=official averaging=none": "averaging. | budget=own",
    "train budget=paper recipe=official attack=pgd": "attack.schedule=official | budget=own",
    "train budget=mini trainer.epochs=1": "trainer.epochs=20 | budget=own",
}
"""Parts that do not fit each other."""

LOADED = {
    "train data.num_classes=5": "data.num_classes=5 | data.num_classes=10",
    "train data.shape=[3,8,8]": "data.shape=[1, 8, 8]",
    "train data.train_size=5000": "5000 | 1442 | data.train_size",
    "train data=cifar10 data.source.download=false paths.data=nowhere": "nowhere | train.npz | DKL_DATA_DIR",
}
"""Mistakes that only the images show, when the run's folder is locked but empty."""

ROWS = COMMANDS | FLAGS | SYNTAX | KEYS | VALUES | PARTS


@pytest.mark.parametrize("line", ROWS)
def test_a_line_is_refused(refuse: Refuse, line: str) -> None:
    refuse(line, ROWS[line])


@pytest.mark.parametrize("line", LOADED)
def test_a_line_is_refused_when_its_images_are_loaded(refuse: Refuse, broken: Path, line: str) -> None:
    refuse(f"{line} paths.results=loaded", LOADED[line])
    assert {path.name for path in (broken / "loaded").rglob("*") if path.is_file()} <= {".lock"}
