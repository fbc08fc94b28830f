"""``format=hf``: safetensors, timm's ``config.json`` and a card, for ``local-dir:`` and the Hugging Face hub."""

import json
from pathlib import Path
from typing import Any

import timm
from safetensors.torch import save

from dkl.config import model_name
from dkl.errors import UserError
from dkl.models.sources import CREATE
from dkl.sharing.card import eval_results, model_card
from dkl.sharing.exported import Exported
from dkl.storage.files import write_atomically, write_text


def write(exported: Exported, folder: Path) -> list[Path]:
    """Write the folder; return its files. Raises UserError if timm cannot build the network by its name."""
    name = model_name(exported.subject.model)
    if exported.subject.model["_target_"] != CREATE or not timm.is_model(name):
        raise UserError(
            f"format=hf needs a network that timm builds by name, and {exported.subject.architecture} is not: use "
            "format=torch, which holds the network itself"
        )
    weights, config, card = (folder / file for file in ("model.safetensors", "config.json", "README.md"))
    content = save(exported.state, metadata={"format": "pt"})
    write_atomically(weights, lambda file: file.write(content))
    write_text(config, json.dumps(timm_config(exported, name), indent=2) + "\n")
    write_text(card, model_card(exported, folder.name, timm_name=name))
    written, results = [weights, config, card], folder / ".eval_results" / "dkl.yaml"
    if text := eval_results(exported):
        write_text(results, text)
        written.append(results)
    else:
        results.unlink(missing_ok=True)  # of another network that was exported here before
    return written


def timm_config(exported: Exported, name: str) -> dict[str, Any]:
    """Return the content of ``config.json``: architecture, arguments, and what images the weights are for."""
    data = exported.subject.data
    mean, std = exported.normalization or ([0.0] * data.shape[0], [1.0] * data.shape[0])
    arguments = {**exported.arguments, **({} if data.shape[0] == 3 else {"in_chans": data.shape[0]})}
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
