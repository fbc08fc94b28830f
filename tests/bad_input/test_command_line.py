"""Commands, flags, Hydra's syntax, keys, choices, types and values of the command line."""

import pytest

from tests.bad_input.conftest import Refuse

COMMANDS = {
    "trian": "'trian' | did you mean train?",
    "Train": "'Train' | did you mean train?",
    "--train": "'--train' | did you mean train?",
    "train=1": "'train=1' | did you mean train?",
    "evaluation": "'evaluation' | did you mean evaluate?",
    "eval": "'eval' | did you mean evaluate?",
    "table": "'table' | did you mean tables?",
    "run": "'run' | did you mean runs?",
    "-x": "'-x' | train, evaluate, reproduce, tables, runs",
    "--verison": "'--verison' | choose one of",
    "reproduce-all": "'reproduce-all' | did you mean reproduce?",
}

FLAGS = {
    "train --lr 0.1": "no flag '--lr' | --help lists the keys",
    "train -x": "no flag '-x' | --hydra-help",
    "train --epochs=3": "no flag '--epochs=3' | --help",
    "train --multi-run seed=1,2": "no flag '--multi-run'",
    "train --config-name=other": "hydra.searchpath",
    "train --config-path=/tmp": "hydra.searchpath",
    "train --config-dir=.": "hydra.searchpath",
    "train -cn other": "hydra.searchpath",
    "train --cfg": "--cfg | expected one argument",
    "train --cfg everything": "--cfg | 'everything' | 'job'",
    "train --info nope": "--info | 'nope' | 'defaults-tree'",
    "train -sc": "install=SHELL | bash, zsh, fish",
    "train -sc install=powershell": "install=SHELL | bash, zsh, fish",
    "train -sc installbash": "'installbash' | KEY=VALUE",
    "evaluate --attack pgd": "no flag '--attack' | dkl evaluate --help",
    "evaluate --config-name=x": "hydra.searchpath",
    "evaluate checkpoint": "'checkpoint' | KEY=VALUE",
    "evaluate 8/255": "'8/255' | KEY=VALUE",
}

SYNTAX = {
    "train ikl": "'ikl' | KEY=VALUE",
    "train loss ikl": "'loss' | KEY=VALUE",
    "train loss: ikl": "'loss:' | KEY=VALUE",
    "train =1": "'=1' has no key",
    "train ==": "quotes",
    "train loss=ikl model": "'model' | KEY=VALUE",
    "train label=a,b:c=d": """label='a,b:c=d'""",
    "train loss=[": "loss=[ | quotes",
    "train loss=[ikl": "loss='[ikl'",
    "train loss={": "loss='{'",
    "train loss={a:1": "loss='{a:1'",
    "train label=(a": "label='(a'",
    "train trainer.epochs=(": "trainer.epochs='('",
    "train label=a=b": "label='a=b'",
    "train label=$HOME/{x": "label='$HOME/{x'",
    "train 'label=a;b'": "label='a;b'",
    "train 'label=a&b'": "label='a&b'",
    "train label=a!": "label='a!'",
    "train ~": "'~' has no key",
    "train +": "'+' | KEY=VALUE",
    "train ++": "'++' | KEY=VALUE",
    "train +=1": "'+=1' has no key",
    "train ~=1": "'~=1' has no key",
    "train @a=1": "'@a=1' has no key",
    "train 'loss=range('": "loss='range('",
    "train 'loss=choice()'": "loss='choice()'",
    "train 'seed=interval(0,1)'": "is an interval | hydra/sweeper=optuna",
    "train 'optimizer.lr=interval(0.01,0.1)'": "is an interval | hydra/sweeper=optuna",
    "train 'seed=range(1)'": "add -m",
    "train seed=1,": "seed='1,'",
    "train ,seed=1": "',seed=1' | KEY=VALUE",
    "train seed=,1": "seed=',1'",
    "train 'seed=glob('": "seed='glob('",
    "train 'seed=foo(1)'": "seed='foo(1)'",
    "train 'seed=int(x)'": "seed='int(x)'",
    "train seed.=1": "'seed.=1' | KEY=VALUE",
    "train .seed=1": "'.seed=1' | KEY=VALUE",
    "train seed..x=1": "'seed..x=1' | KEY=VALUE",
    "train hydra.searchpath=[file:///missing]": "there is no folder /missing",
    "train hydra.searchpath=[missing]": "there is no folder missing",
    "evaluate attacks=[pgd": "attacks='[pgd'",
    "evaluate 'eps=8/255)'": "eps='8/255)'",
    "evaluate run=a:b c{": "'c{' | KEY=VALUE",
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
    "train ~trainer.epochs": "trainer.epochs cannot be removed",
    "train +loss=ikl": "loss=NAME without +",
    "train loss=IKL": "loss=IKL | did you mean ikl",
    "train loss=": "loss= | choose one of | ikl",
    "train loss=null": "loss=null | takes a name",
    "train data=cifar": "data=cifar | did you mean cifar10",
    "train model=wrn-34-10": "did you mean wrn34_10",
    "train attack=fgsm": "attack=fgsm | pgd",
    "train budget=large": "budget=large | mini, own, paper, smoke",
    "train seed=1.5": "seed=1.5 | whole number",
    "train trainer.epochs=null": "trainer.epochs needs a value",
    "train trainer=fast": "trainer.KEY=VALUE",
    "train optimizer.nesterov=maybe": "optimizer.nesterov | true or false",
    "train optimizer.name=adamw2": "did you mean adamw? | sgd",
    "train data.mean=0.5": "data.mean must be a list",
    "train seed='${nope}'": "no key 'nope'",
    "train hydra/launcher=slurm": "hydra/launcher=slurm | submitit_slurm",
    "train -m seed=": "seed | whole number",
}

VALUES = {
    "train data.name=a/b": "data.name='a/b' | letters, digits",
    "train label=": "label='' | 1 to 100 bytes",
    "train data.shape=[8,8]": "data.shape=[8, 8] | channels, height, width",
    "train attack.sigma=-1": "attack.sigma=-1",
    "train optimizer.momentum=1.5": "optimizer.momentum=1.5",
    "train optimizer.lr=inf": "optimizer.lr=inf",
    "train optimizer.weight_decay=-1": "optimizer.weight_decay=-1",
    "train trainer.batch_size=-1": "trainer.batch_size=-1",
    "train trainer.devices=0": "trainer.devices=0",
    "train attack.eps=300": "attack.eps=300 | 8/255",
    "train attack.eps=8/255/2": "8/255/2 | fraction",
    "train paths.results='${oc.env:NOT_SET}'": "paths.results | 'NOT_SET'",
    "train paths.results=bad/weights/text.pt": "bad/weights/text.pt is a file",
}

ROWS = COMMANDS | FLAGS | SYNTAX | KEYS | VALUES


@pytest.mark.parametrize("line", ROWS)
def test_a_line_is_refused(refuse: Refuse, line: str) -> None:
    refuse(line, ROWS[line])
