"""Load weights that others saved: wrapped, prefixed, and checked key by key before anything is loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dkl.checkpoint import read
from dkl.errors import UserError

WRAPPERS = ("ema", "model_state_dict", "state_dict", "model", "net")
PREFIXES = ("module.", "_orig_mod.", "model.", "0.", "1.")
NORMALISATION = ("mu", "sigma", "mean", "std", "input_mean", "input_std")


def _is_state_dict(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(item, Tensor) for item in value.values())


def _unwrap(content: Any, path: Path) -> tuple[str, dict[str, Tensor]]:
    """The state_dict inside a checkpoint's content, and the words for where it lay."""
    if _is_state_dict(content):
        return "a plain state_dict", dict(content)
    if isinstance(content, Mapping):
        for key in WRAPPERS:
            if _is_state_dict(content.get(key)):
                return f"the state_dict under {key!r}", dict(content[key])
    raise UserError(f"{path} holds no state_dict (looked for tensors at the top and under {', '.join(WRAPPERS)})")


def _strip(state: dict[str, Tensor], expected: set[str]) -> tuple[list[str], dict[str, Tensor]]:
    """Take off known prefixes until some keys are the model's own; what still does not fit is reported later."""
    stripped = []
    while not expected & set(state):
        prefix = next((p for p in PREFIXES if any(key.startswith(p) for key in state)), None)
        if prefix is None:
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        stripped.append(prefix)
    return stripped, state


def _some(keys: list[str], most: int = 8) -> str:
    return ", ".join(keys[:most]) + (" …" if len(keys) > most else "")


def match_state_dict(model: nn.Module, content: Any, path: Path) -> tuple[str, dict[str, Tensor]]:
    """What of a checkpoint's ``content`` fits ``model``, and one line on its layout. Raises UserError on a mismatch."""
    layout, state = _unwrap(content, path)
    expected = model.state_dict()
    prefixes, state = _strip(state, set(expected))
    ignored = [k for k in state if k not in expected and (k.startswith("sub_block1.") or k in NORMALISATION)]
    state = {key: value for key, value in state.items() if key not in ignored}
    problems = {
        "missing": sorted(k for k in set(expected) - set(state) if not k.endswith("num_batches_tracked")),
        "unexpected": sorted(set(state) - set(expected)),
        "of another shape": sorted(
            f"{k} {tuple(state[k].shape)} for {tuple(expected[k].shape)}"
            for k in set(expected) & set(state)
            if state[k].shape != expected[k].shape
        ),
    }
    if any(problems.values()):
        lines = "".join(f"\n  {len(keys)} {what}: {_some(keys)}" for what, keys in problems.items() if keys)
        raise UserError(f"{path} does not fit this {type(model).__name__}; nothing was loaded{lines}")
    if prefixes:
        layout += f", prefix {''.join(prefixes)!r} taken off"
    if ignored:
        layout += f", {len(ignored)} keys left aside ({ignored[0]} …)"
    return layout, {**{k: v for k, v in expected.items() if k.endswith("num_batches_tracked")}, **state}


def load_checkpoint(model: nn.Module, path: str | Path) -> str:
    """Load the weights in ``path`` into ``model``; returns one line that says which layout was seen.

    Accepts plain state_dicts, the usual wrappers (``state_dict``, ``model``, ``ema`` …) and prefixes (``module.`` …),
    TRADES' surplus ``sub_block1``, and this project's own checkpoints. Raises UserError where the file is missing,
    is not a safe checkpoint, or does not fit: it lists the keys, and loads nothing.
    """
    path = Path(path)
    content = read(path, map_location="cpu")
    layout, state = match_state_dict(model, content, path)
    with torch.no_grad():
        model.load_state_dict(state)
    return f"{path}: {layout}"
