"""Commands, flags, Hydra's syntax, keys, choices, types and values of the command line."""

import pytest

from tests.bad_input.conftest import Refuse

COMMANDS = {
    "trian": "'trian' | did you mean train?",
    "Train": "'Train' | did you mean train?",
    "train=1": "'train=1' | did you mean train?",
    "eval": "'eval' | did you mean evaluate?",
    "table": "'table' | did you mean tables?",
    "-x": "'-x' | train, evaluate, reproduce, tables, runs",
    "--verison": "'--verison' | choose one of",
    "reproduce-all": "'reproduce-all' | did you mean reproduce?",
}

FLAGS = {
    "train --lr 0.1": "no flag '--lr' | --help lists the keys",
    "train -x": "no flag '-x' | --hydra-help",
    "train --multi-run seed=1,2": "no flag '--multi-run'",
    "train --config-name=other": "--config-dir FOLDER",
    "train --config-dir=missing": "--config-dir missing | no such folder",
    "train --config-dir": "no such folder",
    "train --config-dir=. hydra.searchpath=[file://.]": "give one of them",
    "train --cfg": "--cfg | expected one argument",
    "train --cfg everything": "--cfg | 'everything' | 'job'",
    "train --info nope": "--info | 'nope' | 'defaults-tree'",
    "train -sc": "install=SHELL | bash, zsh, fish",
    "train -sc install=powershell": "install=SHELL | bash, zsh, fish",
    "train -sc installbash": "'installbash' | KEY=VALUE",
    "evaluate --attack pgd": "no flag '--attack' | dkl evaluate --help",
    "evaluate checkpoint": "'checkpoint' | KEY=VALUE",
}

SYNTAX = {
    "train ikl": "'ikl' | KEY=VALUE",
    "train loss ikl": "'loss' | KEY=VALUE",
    "train =1": "'=1' has no key",
    "train ==": "quotes",
    "train label=a,b:c=d": """label='a,b:c=d'""",
    "train loss=[": "loss=[ | quotes",
    "train loss=[ikl": "loss='[ikl'",
    "train loss={a:1": "loss='{a:1'",
    "train trainer.epochs=(": "trainer.epochs='('",
    "train label=a=b": "label='a=b'",
    "train label=$HOME/{x": "label='$HOME/{x'",
    "train 'label=a;b'": "label='a;b'",
    "train ~": "'~' has no key",
    "train +": "'+' | KEY=VALUE",
    "train ++": "'++' | KEY=VALUE",
    "train @a=1": "'@a=1' has no key",
    "train 'loss=range('": "loss='range('",
    "train 'seed=interval(0,1)'": "is an interval | hydra/sweeper=optuna",
    "train 'optimizer.lr=interval(0.01,0.1)'": "is an interval | hydra/sweeper=optuna",
    "train -m hydra/sweeper=optuna 'optimizer.lr=interval(0.2,0.1)'": "is empty | interval(0.1,0.2)",
    "train 'seed=range(1)'": "add -m",
    "train label=Größe-π": "quotes | label='Größe-π'",
    "train seed=1,": "seed='1,'",
    "train ,seed=1": "',seed=1' | KEY=VALUE",
    "train 'seed=foo(1)'": "seed='foo(1)'",
    "train 'seed=int(x)'": "seed='int(x)'",
    "train seed.=1": "'seed.=1' | KEY=VALUE",
    "train hydra.searchpath=[file:///missing]": "there is no folder /missing",
    "train hydra.searchpath=[missing]": "there is no folder missing",
    "evaluate attacks=[pgd": "attacks='[pgd'",
}

KEYS = {
    "train los=ikl": "'los' | did you mean loss?",
    "train epochs=3": "'epochs' | did you mean trainer.epochs?",
    "train lr=0.1": "'lr' | did you mean optimizer.lr?",
    "train trainer.epohcs=2": "'trainer.epohcs' | did you mean trainer.epochs?",
    "train loss.alpha=1": "'loss.alpha' | wmse_weight, ce_weight",
    "train averaging.decay=0.9": "averaging is none here | averaging=ema",
    "train logger.mode=online": "logger is none here | logger=wandb",
    "train ~nope": "'nope' | --help",
    "train ~trainer": "trainer cannot be removed | leave out ~trainer",
    "evaluate run=x ~device": "device cannot be removed | leave out ~device",
    "train ~label": "~label: label is null | leave it out",
    "train ~trainer.epochs": "trainer.epochs cannot be removed",
    "train +loss=ikl": "loss=NAME without +",
    "train loss=IKL": "loss=IKL | did you mean ikl",
    "train loss=": "loss= | choose one of | ikl",
    "train loss=null": "loss=null | takes a name",
    "train loss=[dkl,ikl]": "loss takes one name | -m loss=dkl,ikl",
    "train data=cifar": "data=cifar | did you mean cifar10",
    "train model=wrn-34-10": "did you mean wrn34_10",
    "train attack=fgsm": "attack=fgsm | pgd",
    "train budget=large": "budget=large | mini, own, paper, smoke",
    "train +optimizer.betas=[0.9,0.98]": "no key 'optimizer.betas' | choose one of name, lr, momentum",
    "train optimizer.betas=[0.9,0.98]": "no key 'optimizer.betas' | write optimizer.arguments.betas=",
    "train +data.augment.flop=0.5": "no key 'data.augment.flop' | did you mean flip?",
    "train +evaluation.foo=0.5": "no key 'evaluation.foo'",
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
    "train -m seed=": "seed | whole number",
    "train -m hydra/sweeper=optuna hydra.sweeper.n_trials=0": "hydra.sweeper.n_trials=0 must be at least 1",
    "train -m hydra/sweeper=optuna 'hydra.sweeper.n_trials=${oc.env:NOPE}'": "n_trials | NOPE",
}

VALUES = {
    "train data.name=a/b": "data.name='a/b' | letters, digits",
    "train label=": "label='' | 1 to 100 bytes",
    "train data.shape=[8,8]": "data.shape=[8, 8] | channels, height, width",
    "train model.num_classes=5": "model.num_classes=5 | leave model.num_classes alone",
    "train task.num_classes=1": "task.num_classes=1 | leave task.num_classes alone",
    "train task=lbgat task.guide.num_classes=1": "task.guide.num_classes=1 | leave task.guide.num_classes alone",
    "train attack.sigma=-1": "attack.sigma=-1",
    "train optimizer.momentum=1.5": "optimizer.momentum=1.5",
    "train optimizer.lr=inf": "optimizer.lr=inf",
    "train optimizer.weight_decay=-1": "optimizer.weight_decay=-1",
    "train trainer.batch_size=-1": "trainer.batch_size=-1",
    "train trainer.devices=0": "trainer.devices=0",
    "train trainer.devices=999": "trainer.devices=999",
    "train trainer.batch_size=2 trainer.devices=3": "trainer.devices=3 | a batch of 2 into 3 parts",
    "train budget.name=tiny": "budget.name=tiny: choose one of mini, own, paper, smoke",
    "train attack.objective=kl": "attack.objective=kl must hold a _target_",
    "train attack.objective._target_=dkl.losses.Nope": "attack.objective: there is no dkl.losses.Nope to import",
    "train data.test_size=40 evaluation.n=50": "evaluation.n=50 is more than data.test_size=40",
    "train data.source._target_=nope.x": "there is no nope.x to import",
    "train loss._target_=dkl.losses.Nope": "there is no dkl.losses.Nope to import",
    "train task._target_=dkl.tasks.Nope": "there is no dkl.tasks.Nope to import",
    "train attack.eps=300": "attack.eps=300 | 8/255",
    "train attack.eps=8/255/2": "attack.eps='8/255/2' | fraction",
    "train attack.eps=true": "attack.eps=True",
    "train evaluation.precision=fp16": "evaluation.precision=fp16 must be float32 or bf16",
    "train recipe=kd_cifar task.teacher=runs/NAME": "task.teacher=runs/NAME | task.teacher.run=FOLDER",
    "train task.awp=0.005": "task.awp=0.005 | task.awp.gamma=0.005",
    "train paths.results='${oc.env:NOT_SET}'": "paths.results | 'NOT_SET'",
    "train paths.results=bad/weights/text.pt": "bad/weights/text.pt is a file",
}

ROWS = COMMANDS | FLAGS | SYNTAX | KEYS | VALUES


@pytest.mark.parametrize("line", ROWS)
def test_a_line_is_refused(refuse: Refuse, line: str) -> None:
    refuse(line, ROWS[line])


def test_a_refused_key_leaves_no_other_line_in_the_log(refuse: Refuse, caplog: pytest.LogCaptureFixture) -> None:
    refuse("evaluate model=preact_resnet18 checkpoint=x data=cifar100 foo=1", "'foo' | --help lists the keys")
    assert not caplog.records
