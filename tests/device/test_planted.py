"""The pretend device finds mistakes: each of these is one forgotten move of a tensor or generator, and is refused."""

import importlib
import inspect
import types
from pathlib import Path
from typing import NamedTuple

import pytest

from dkl.assembly import train
from dkl.config import compose_config
from tests.device.cases import overrides, write_inputs

pytestmark = pytest.mark.pretend_device


class Planted(NamedTuple):
    """A mistake: ``old`` in the source of ``module`` becomes ``new``, and training case ``case`` must fail."""

    module: str
    old: str
    new: str
    case: str


IKL = "IKL, AWP, step average, selection"
PLANTED = {
    "noise of a CPU generator": Planted(
        "dkl.tasks.adversarial", "torch.Generator(next(model.parameters()).device)", "torch.Generator()", IKL
    ),
    "selection's noise of a CPU generator": Planted(
        "dkl.training.selection", "torch.Generator(self.batches.labels.device)", "torch.Generator()", IKL
    ),
    "class prior": Planted("dkl.tasks.adversarial", ".to(parameter.device)", "", IKL),
    "teacher": Planted(
        "dkl.tasks.distillation.logits", "teacher.to(parameter.device, parameter.dtype)", "teacher", "kd"
    ),
    "guide": Planted(
        "dkl.tasks.adversarial_baselines", "guide.to(parameter.device, parameter.dtype)", "guide", "LBGAT"
    ),
    "feature loss": Planted(
        "dkl.tasks.distillation.features",
        "self.loss.to(parameter.device, parameter.dtype)",
        "self.loss",
        "fitnet",
    ),
    "second view": Planted(
        "dkl.data.loading",
        "view.to(self.labels.device, non_blocking=True)",
        "view",
        "two views by AutoAugment",
    ),
    "synthetic pixels": Planted(
        "dkl.data.loading",
        "= pixels.to(device)\n        labels[synthetic_places.to(device)] = synthetic_labels.to(device)",
        "= pixels\n        labels[synthetic_places.to(device)] = synthetic_labels",
        "synthetic images, statistics of the batch",
    ),
}


def plant(mistake: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the methods of the classes in ``mistake.module`` by those of its changed source."""
    module = importlib.import_module(mistake.module)
    source = Path(str(module.__file__)).read_text("utf-8")
    assert mistake.old in source
    changed = dict(vars(module))
    exec(compile(source.replace(mistake.old, mistake.new), str(module.__file__), "exec"), changed)
    for name, kind in vars(module).items():
        if not isinstance(kind, type) or kind.__module__ != mistake.module:
            continue
        planted, changed[name] = changed[name], kind  # the changed methods know the classes of before
        for method, function in vars(planted).items():
            if isinstance(function, types.FunctionType):
                for cell in getattr(inspect.unwrap(function), "__closure__", None) or ():
                    if cell.cell_contents is planted:  # super() without arguments
                        cell.cell_contents = kind
                monkeypatch.setattr(kind, method, function)


@pytest.mark.parametrize("name", PLANTED)
def test_a_forgotten_move_is_found(name: str, pretend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake = PLANTED[name]
    if mistake.case == "fitnet":
        pytest.importorskip("torchdistill")
    plant(mistake, monkeypatch)
    given = overrides(mistake.case, write_inputs(tmp_path), f"trainer.device={pretend}", f"paths.results={tmp_path}")
    with pytest.raises(RuntimeError, match=r"same device|generator"):
        train(compose_config("train", given))
