"""Load weights that others saved: wrapped, prefixed, and checked key by key before anything is loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dkl.checkpoint import read
from dkl.errors import UserError

State = dict[str, Tensor]

WRAPPERS = ("ema", "model_state_dict", "state_dict", "model", "net", "average")
AVERAGED = ("ema", "average")
UNAVERAGED = "unaveraged_model_state_dict"  # of DM-Improves-AT, whose 'model_state_dict' is the average
PREFIXES = ("module.", "_orig_mod.", "model.", "0.", "1.")
NORMALISATION = {
    **dict.fromkeys(("mu", "mean", "input_mean"), "input_mean"),
    **dict.fromkeys(("sigma", "std", "input_std"), "input_std"),
}


def _is_state_dict(value: object) -> bool:
    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(key, str) and isinstance(item, Tensor) for key, item in value.items())


def _find(content: object, *where: str) -> tuple[tuple[str, ...], State] | None:
    """The first state_dict at the top of ``content`` or under WRAPPERS, nested or not, and the keys it lies under."""
    if not isinstance(content, Mapping):
        return None
    if _is_state_dict(content):
        return where, dict(content)
    return next((found for key in WRAPPERS if (found := _find(content.get(key), *where, key))), None)


def _strip(state: State, expected: set[str]) -> tuple[list[str], State]:
    """Take off known prefixes until some keys are the model's own; what still does not fit is reported later."""
    stripped = []
    while not expected & set(state):
        prefix = next((p for p in PREFIXES if any(key.startswith(p) for key in state)), None)
        if prefix is None:
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        stripped.append(prefix)
    return stripped, state


def _entries(content: Mapping[str, Any], expected: set[str]) -> list[str]:
    """The keys of a checkpoint under which weights lie that have keys of the model's."""
    found = {key: _find(value) for key, value in content.items()}
    return [key for key, entry in found.items() if entry and expected & set(_strip(entry[1], expected)[1])]


def _unwrap(content: Any, expected: set[str], path: Path, key: str | None) -> tuple[str, State]:
    """The state_dict inside a checkpoint's content, under ``key`` where given, and the words for where it lay."""
    content = content if isinstance(content, Mapping) else {}
    entries = _entries(content, expected)
    found = _find(content) if key is None else _find(content.get(key), key)
    if found is None and key is not None:
        there = f"try {', '.join(map(repr, entries))}" if entries else "give no key to load a plain state_dict"
        raise UserError(f"{path} holds no weights under {key!r}; {there}")
    if found is None:
        raise UserError(f"{path} holds no state_dict (looked for tensors at the top and under {', '.join(WRAPPERS)})")
    where, state = found
    if not where:
        return "a plain state_dict", state
    averaged = where[-1] in AVERAGED or (where[-1] == "model_state_dict" and UNAVERAGED in content)
    others = ", ".join(repr(entry) for entry in entries if entry != where[0])
    layout = f"the {'averaged weights' if averaged else 'state_dict'} under {'.'.join(where)!r}"
    return layout + (f" (also there: {others})" if others else ""), state


def _some(keys: list[str], most: int = 8) -> str:
    return ", ".join(keys[:most]) + (" …" if len(keys) > most else "")


def _surplus(key: str) -> bool:
    """Whether a key that the model lacks may be left aside: TRADES' unused block, a counter of averages, constants."""
    return key.startswith("sub_block1.") or key == "n_averaged" or key.rpartition(".")[2] in NORMALISATION


def _left_aside(model: nn.Module, state: State) -> str:
    """Words for the keys that are not loaded, and for a normalisation among them that ``model`` does not apply."""
    words = f"{len(state)} keys left aside ({_some(list(state), 2)})"
    buffers = {"input_mean": torch.zeros(1), "input_std": torch.ones(1), **dict(model.named_buffers())}
    for key, value in state.items():
        if name := NORMALISATION.get(key.rpartition(".")[2]):
            saved, applied = value.flatten().float(), buffers[name].flatten().float().cpu()
            alike = 1 in (saved.numel(), applied.numel()) or saved.numel() == applied.numel()
            if not (alike and torch.allclose(saved, applied, rtol=0, atol=1e-3)):
                said = _some([f"{item:.4g}" for item in saved.tolist()])
                return f"{words}; beware: this model does not apply their {key}, {said} (model.mean, model.std)"
    return words


def match_state_dict(model: nn.Module, content: Any, path: Path, key: str | None = None) -> tuple[str, State]:
    """What of a checkpoint's ``content`` fits ``model``, and one line on its layout. Raises UserError on a mismatch."""
    expected = model.state_dict()
    layout, state = _unwrap(content, set(expected), path, key)
    prefixes, state = _strip(state, set(expected))
    aside = {k: v for k, v in state.items() if k not in expected and _surplus(k)}
    state = {k: v for k, v in state.items() if k not in aside}
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
    if aside:
        layout += f", {_left_aside(model, aside)}"
    return layout, {**{k: v for k, v in expected.items() if k.endswith("num_batches_tracked")}, **state}


def load_checkpoint(model: nn.Module, path: str | Path, key: str | None = None) -> str:
    """Load the weights in ``path`` into ``model``; returns one line that says which layout was seen.

    Accepts plain state_dicts, the usual wrappers (``state_dict``, ``model``, ``ema`` …) and prefixes (``module.`` …),
    TRADES' surplus ``sub_block1``, normalisation constants (left aside: ``create_model`` takes them), DM-Improves-AT's
    files (of which it takes the average) and this project's own checkpoints. ``key`` names the entry to take, such as
    ``average``. Raises UserError where the file is missing, is not a safe checkpoint, holds no such entry, or does not
    fit: it lists the keys, and loads nothing.
    """
    path = Path(path)
    content = read(path, map_location="cpu")
    layout, state = match_state_dict(model, content, path, key)
    with torch.no_grad():
        model.load_state_dict(state)
    return f"{path}: {layout}"
