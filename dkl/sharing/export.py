"""``export`` writes a finished run's network to a folder, in one of several formats; ``push`` uploads it to a hub."""

import contextlib
import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from omegaconf import OmegaConf
from safetensors.torch import save

from dkl.config import model_name
from dkl.errors import UserError, choose_from, first_line, needs_extra
from dkl.models.sources import CREATE
from dkl.reporting.formats import render
from dkl.reporting.robustbench import model_id, model_info
from dkl.reporting.statistics import percent
from dkl.sharing.exported import HUB_DATASETS, Exported, model_card, read_run
from dkl.storage import checkpoint
from dkl.storage.fetch import unreachable
from dkl.storage.files import check_writable, write_atomically, write_text


def export(
    run: str | Path, to: str | Path, *, format: str = "hf", weights: str | None = None, results: str | Path = "results"
) -> list[Path]:
    """Write the network of the finished run in folder ``run`` to folder ``to``; return the files.

    ``hf`` is a folder that timm and the Hugging Face hub read, ``robustbench`` what RobustBench asks for, ``torch`` an
    ExportedProgram, and ``onnx`` an ONNX file. ``weights`` are last, average or best. The figures of the card are those
    of the records in ``results``. Raises UserError if there is no such run or format, or if the network does not fit.
    """
    if format not in FORMATS:
        raise UserError(f"format={format!r} is no format of an export: {choose_from(format, FORMATS)}")
    check_writable(Path(to))
    exported = read_run(Path(run), weights=weights, results=Path(results))
    return FORMATS[format](exported, Path(to))


def _write_folder(exported: Exported, folder: Path) -> list[Path]:
    """Write safetensors, timm's ``config.json`` and a card, for ``local-dir:`` and the Hugging Face hub.

    Raises UserError if timm cannot build the network by its name.
    """
    name = model_name(exported.subject.model)
    if exported.subject.model["_target_"] != CREATE or not timm.is_model(name):
        raise UserError(
            f"format=hf needs a network that timm builds by name, and {exported.subject.architecture} is not: use "
            "format=torch, which holds the network itself"
        )
    weights, config, card = (folder / file for file in ("model.safetensors", "config.json", "README.md"))
    content = save(exported.state, metadata={"format": "pt"})
    write_atomically(weights, lambda file: file.write(content))
    write_text(config, json.dumps(_timm_config(exported, name), indent=2) + "\n")
    write_text(card, model_card(exported, folder.name, timm_name=name))
    written, results = [weights, config, card], folder / ".eval_results" / "dkl.yaml"
    # One entry per record with AutoAttack on all test images, if the hub knows the dataset.
    dataset = HUB_DATASETS.get(exported.subject.data.name)
    entries = [
        {
            "dataset": {"id": dataset, "task_id": f"autoattack-{record.norm.lower()}-{record.eps_text}"},
            "value": float(percent(record.robust)),
            "date": record.created,
            "notes": f"{record.n} test images, clean accuracy {percent(record.clean)}",
        }
        for record in exported.records
        if record.robust is not None and record.is_autoattack and not record.partial and record.budget != "smoke"
    ]
    if dataset and entries:
        write_text(results, OmegaConf.to_yaml(entries))
        written.append(results)
    else:
        results.unlink(missing_ok=True)  # of another network that was exported here before
    return written


def _timm_config(exported: Exported, name: str) -> dict[str, Any]:
    """Return the content of ``config.json``: architecture, arguments, and what images the weights are for."""
    data, model = exported.subject.data, exported.subject.model
    mean, std = exported.normalization or exported.identity
    # The arguments of the network's constructor that are not in the other entries.
    known = ("_target_", "name", "title", "num_classes", "in_chans", "mean", "std")
    arguments = {key: value for key, value in model.items() if key not in known and value is not None}
    arguments |= {} if data.shape[0] == 3 else {"in_chans": data.shape[0]}
    return {
        "architecture": name,
        "num_classes": data.num_classes,
        **({"model_args": arguments} if arguments else {}),
        "pretrained_cfg": {
            "tag": exported.run.label,
            "custom_load": False,
            "input_size": list(data.shape),
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "mean": mean,
            "std": std,
            "num_classes": data.num_classes,
        },
    }


DYNAMIC = {0: torch.export.Dim("batch")}
"""The dimension of images that may have any size."""


def _write_program(exported: Exported, folder: Path) -> list[Path]:
    """Write the network with its weights as an ExportedProgram, ``model.pt2``, and a card."""
    program, card = folder / "model.pt2", folder / "README.md"
    content = torch.export.export(exported.model, (exported.example,), dynamic_shapes=(DYNAMIC,))
    write_atomically(program, lambda file: torch.export.save(content, file))
    write_text(card, model_card(exported, f"{folder.name}/{program.name}"))
    return [program, card]


def _write_onnx(exported: Exported, folder: Path) -> list[Path]:
    """Write ``model.onnx`` for ONNX runtimes (extra ``onnx``) and a card. Raises NotInstalledError without onnx."""
    with needs_extra("onnx"):
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    path, card = folder / "model.onnx", folder / "README.md"
    with contextlib.redirect_stdout(io.StringIO()):  # torch prints its progress
        program = torch.onnx.export(
            exported.model,
            (exported.example,),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=(DYNAMIC,),
            dynamo=True,
        )
    assert program is not None
    content = program.model_proto.SerializeToString()
    write_atomically(path, lambda file: file.write(content))
    write_text(card, model_card(exported, f"{folder.name}/{path.name}"))
    return [path, card]


ROBUSTBENCH_CLASSES = {
    r"wrn(\d+)_(\d+)": ("WideResNet", "depth={0}, widen_factor={1}, num_classes={classes}"),
    r"preact_resnet18": ("PreActResNet", "PreActBlockV2, [2, 2, 2, 2], num_classes={classes}, bn_before_fc=True"),
    r"wrn(\d+)_(\d+)_swish": (
        "DMWideResNet",
        "num_classes={classes}, depth={0}, width={1}, activation_fn=nn.SiLU",
    ),
    r"preact_resnet18_swish": (
        "DMPreActResNet",
        "num_classes={classes}, depth=18, width=0, activation_fn=nn.SiLU",
    ),
}
"""RobustBench's class and its arguments, by this project's names of networks."""


def _write_robustbench(exported: Exported, folder: Path) -> list[Path]:
    """Write the file that RobustBench's ``load_model`` reads, and what its README asks for beside it.

    ``<id>.pt`` holds ``{"state_dict": …}`` with the names and buffers of RobustBench's own classes, so that it loads
    strictly. ``model_zoo.py.txt`` is the definition to add to ``robustbench/model_zoo/<dataset>.py``, and ``<id>.json``
    the entry of ``model_info``, made from a record of standard AutoAttack if there is one. Raises UserError if
    RobustBench has no class for the network.
    """
    name, data = model_name(exported.subject.model), exported.subject.data
    matches = {pattern: match for pattern in ROBUSTBENCH_CLASSES if (match := re.fullmatch(pattern, name))}
    if not matches:
        raise UserError(f"format=robustbench: RobustBench has no class for {name}; use format=torch")
    pattern, match = matches.popitem()
    base, template = ROBUSTBENCH_CLASSES[pattern]
    arguments = template.format(*match.groups(), classes=data.num_classes)
    standard = [record for record in exported.records if record.is_autoattack and not record.partial]
    id = model_id(standard[-1]) if standard else re.sub(r"[^\w.-]", "_", exported.name)
    norm = standard[-1].norm if standard else exported.run.config.evaluation.norm
    values: dict[str, Any] = {"dataset": data.name, "id": id, "norm": norm.lower(), "base": base, "own": None}
    buffers, call = {}, f"{base}({arguments})"
    if base.startswith("DM"):  # this class normalizes in any case
        mean, std = exported.normalization or exported.identity
        buffers = {"mean": torch.tensor(mean).view(-1, 1, 1), "std": torch.tensor(std).view(-1, 1, 1)}
        call = f"{base}({arguments}, mean={tuple(mean)}, std={tuple(std)})"
    elif exported.normalization:
        mean, std = exported.normalization
        buffers = {"mu": torch.tensor(mean).view(1, -1, 1, 1), "sigma": torch.tensor(std).view(1, -1, 1, 1)}
        values |= {"own": re.sub(r"\W", "_", id) + "Net", "arguments": arguments, "mean": mean, "std": std}
        call = f"{values['own']}()"
    weights, definition = folder / f"{id}.pt", folder / "model_zoo.py.txt"
    checkpoint.save(weights, {"state_dict": exported.state | buffers})
    write_text(definition, render("formats/robustbench.py.j2", call=call, **values))
    written = [weights, definition]
    if standard and exported.subject.budget != "smoke":
        written.append(folder / f"{id}.json")
        write_text(written[-1], json.dumps(model_info(standard[-1]), indent=2, ensure_ascii=False) + "\n")
    return written


FORMATS: dict[str, Callable[[Exported, Path], list[Path]]] = {
    "hf": _write_folder,
    "robustbench": _write_robustbench,
    "torch": _write_program,
    "onnx": _write_onnx,
}
"""By name: what writes a network into a folder, and returns the files."""


def check_push(name: str) -> None:
    """Raise UserError unless ``name`` is a repository ``user/name`` of a hub that answers."""
    with needs_extra("hub"):
        from huggingface_hub import constants
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(f"push={name} must be a repository of the hub, such as push=user/name")
    if why := unreachable(constants.ENDPOINT):
        raise UserError(f"push={name}: the hub {constants.ENDPOINT} does not answer ({why}); try again later")


def push(folder: Path, files: Sequence[Path], name: str) -> str:
    """Upload ``files`` of ``folder`` to the hub's repository ``name``, which is created if it is missing.

    HF_ENDPOINT sets the hub's address. Nothing else in ``folder`` is uploaded. Returns the repository's address. Raises
    UserError if the hub refuses it.
    """
    check_push(name)
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    api, only = HfApi(endpoint=constants.ENDPOINT), [path.relative_to(folder).as_posix() for path in files]
    try:
        api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, allow_patterns=only, commit_message="Upload by dkl export")
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise UserError(f"push={name}: {first_line(error)}; log in by hf auth login, and check the name") from None
    return f"{constants.ENDPOINT}/{name}"
