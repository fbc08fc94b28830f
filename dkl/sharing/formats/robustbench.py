"""``format=robustbench``: the file that RobustBench's ``load_model`` reads, and what its README asks for beside it.

``<id>.pt`` holds ``{"state_dict": …}`` with the names and buffers of RobustBench's own classes, so that it loads
strictly. ``model_zoo.py.txt`` is the definition to add to ``robustbench/model_zoo/<dataset>.py``, and ``<id>.json`` the
entry of ``model_info``, made from a record of standard AutoAttack if there is one.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dkl.config import model_name
from dkl.errors import UserError
from dkl.reporting.robustbench import model_id, model_info
from dkl.sharing.exported import Exported
from dkl.storage import checkpoint
from dkl.storage.files import write_text

DEFINITION = """# Add to robustbench/model_zoo/{file}, and the address of {id}.pt as its gdrive_id.
{classes}
# In the dictionary {norm}:
('{id}', {{
    'model': lambda: {call},
    'gdrive_id': '',
}}),
"""

NORMALIZED = """class {name}({base}):
    def __init__(self):
        super().__init__({arguments})
        self.register_buffer('mu', torch.tensor({mean}).view(1, {channels}, 1, 1))
        self.register_buffer('sigma', torch.tensor({std}).view(1, {channels}, 1, 1))

    def forward(self, x):
        return super().forward((x - self.mu) / self.sigma)

"""


def _wide_resnet(found: re.Match[str], classes: int) -> tuple[str, str]:
    return "WideResNet", f"depth={found[1]}, widen_factor={found[2]}, num_classes={classes}"


def _preact_resnet(found: re.Match[str], classes: int) -> tuple[str, str]:
    return "PreActResNet", f"PreActBlockV2, [2, 2, 2, 2], num_classes={classes}, bn_before_fc=True"


def _swish_wide_resnet(found: re.Match[str], classes: int) -> tuple[str, str]:
    return "DMWideResNet", f"num_classes={classes}, depth={found[1]}, width={found[2]}, activation_fn=nn.SiLU"


def _swish_preact_resnet(found: re.Match[str], classes: int) -> tuple[str, str]:
    return "DMPreActResNet", f"num_classes={classes}, depth=18, width=0, activation_fn=nn.SiLU"


CLASSES: dict[str, Callable[[re.Match[str], int], tuple[str, str]]] = {
    r"wrn(\d+)_(\d+)": _wide_resnet,
    r"preact_resnet18": _preact_resnet,
    r"wrn(\d+)_(\d+)_swish": _swish_wide_resnet,
    r"preact_resnet18_swish": _swish_preact_resnet,
}
"""RobustBench's class and its arguments, by this project's names of networks."""


def write(exported: Exported, folder: Path) -> list[Path]:
    """Write the weights, the definition and the entry; return the files.

    Raises UserError if RobustBench has no class for the network.
    """
    name, classes = model_name(exported.subject.model), exported.subject.data.num_classes
    found = [(make, match) for pattern, make in CLASSES.items() if (match := re.fullmatch(pattern, name))]
    if not found:
        raise UserError(f"format=robustbench: RobustBench has no class for {name}; use format=torch")
    make, match = found[0]
    base, arguments = make(match, classes)
    standard = [record for record in exported.records if record.is_autoattack and not record.partial]
    id = model_id(standard[-1]) if standard else re.sub(r"[^\w.-]", "_", exported.name)
    norm = standard[-1].norm if standard else exported.run.config.evaluation.norm
    weights, definition = folder / f"{id}.pt", folder / "model_zoo.py.txt"
    checkpoint.save(weights, {"state_dict": exported.state | _buffers(exported, base)})
    write_text(definition, _definition(exported, id, base, arguments, norm))
    written = [weights, definition]
    if standard and exported.subject.budget != "smoke":
        written.append(folder / f"{id}.json")
        write_text(written[-1], json.dumps(model_info(standard[-1]), indent=2, ensure_ascii=False) + "\n")
    return written


def _buffers(exported: Exported, base: str) -> dict[str, Tensor]:
    """Return the buffers of the input's normalization that RobustBench's class has."""
    constants = exported.normalization
    if base.startswith("DM"):  # this class normalizes in any case
        channels = exported.subject.data.shape[0]
        mean, std = constants or ([0.0] * channels, [1.0] * channels)
        return {"mean": torch.tensor(mean).view(-1, 1, 1), "std": torch.tensor(std).view(-1, 1, 1)}
    if constants is None:
        return {}
    return {
        name: torch.tensor(values).view(1, -1, 1, 1) for name, values in zip(("mu", "sigma"), constants, strict=True)
    }


def _definition(exported: Exported, id: str, base: str, arguments: str, norm: str) -> str:
    dataset, channels = exported.subject.data.name, exported.subject.data.shape[0]
    constants = exported.normalization
    classes, call = "", f"{base}({arguments})"
    if base.startswith("DM"):
        mean, std = constants or ([0.0] * channels, [1.0] * channels)
        call = f"{base}({arguments}, mean={tuple(mean)}, std={tuple(std)})"
    elif constants is not None:
        name = re.sub(r"\W", "_", id) + "Net"
        classes = NORMALIZED.format(
            name=name, base=base, arguments=arguments, mean=constants[0], std=constants[1], channels=channels
        )
        call = f"{name}()"
    return DEFINITION.format(file=f"{dataset}.py", id=id, classes=classes, norm=norm.lower(), call=call)
