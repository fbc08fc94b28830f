"""Load weights that other projects saved or timm publishes, and report those that do not fit.

Checkpoints are unwrapped, prefixes stripped, and every key is checked before anything is loaded.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from dkl.console import say
from dkl.errors import UserError, first_line
from dkl.models.parts import with_prefixes
from dkl.storage.checkpoint import read

StateDict = dict[str, Tensor]

WRAPPERS = ("ema", "model_state_dict", "state_dict", "model", "net", "average", "last")  # in order of preference
AVERAGED = ("ema", "average")
UNAVERAGED = "unaveraged_model_state_dict"  # in files of DM-Improves-AT, whose 'model_state_dict' is the average
PREFIXES = ("module.", "_orig_mod.", "model.", "0.", "1.")
NORMALIZATION = {
    **dict.fromkeys(("mu", "mean", "input_mean"), "input_mean"),
    **dict.fromkeys(("sigma", "std", "input_std"), "input_std"),
}
"""Last part of the keys of saved normalization constants, and the buffer of ``normalize_input`` that corresponds."""

UNUSED = ("sub_block1.", "n_averaged", "model_preact_hl1.")
"""Beginnings of keys that are ignored: unused parts of TRADES' and Andriushchenko's files, a counter of averages."""

CLASSIFIERS = ("fc", "classifier", "mlp", "head")
"""Beginnings of the keys that USB leaves out of pretrained weights."""

STEMS = {
    # timm's deep stem is conv1 = (conv, BN, ReLU, conv, BN, ReLU, conv), then bn1; PSPNet's is one sequence.
    "timm": {"conv1.": "layer0.", "bn1.": "layer0.7."},
    # semseg's, which APD starts from: each convolution and BatchNorm has its own name.
    "semseg": {f"{kind}{i + 1}.": f"layer0.{3 * i + n}." for i in range(3) for n, kind in enumerate(("conv", "bn"))},
}
"""Stems of encoders, and the beginnings of their keys in ``PSPNet``."""

SHOWN, SCREEN = 4, 40
"""Tensors of each kind that an error about misfits names in its line, and the lines of its note."""


def _find(content: object, *keys: str) -> tuple[tuple[str, ...], StateDict] | None:
    """Find the first state_dict at the top of ``content`` or under nested WRAPPERS; return the keys to it, and it."""
    if not isinstance(content, Mapping):
        return None
    if content and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        return keys, dict(content)
    return next((place for key in WRAPPERS if (place := _find(content.get(key), *keys, key))), None)


def _strip(state: StateDict, expected: set[str]) -> tuple[list[str], StateDict]:
    """Strip known prefixes until some keys are the model's own. Returns the prefixes and the new state."""
    stripped = []
    while not expected & set(state):
        prefix = next((p for p in PREFIXES if any(key.startswith(p) for key in state)), None)
        if prefix is None:
            break  # keys that still do not fit are reported by the caller
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        stripped.append(prefix)
    return stripped, state


def _unwrap(content: Any, expected: set[str], path: Path, key: str | None) -> tuple[str, StateDict]:
    """Return a description of the layout, and the state_dict, found under ``key`` if given."""
    content = content if isinstance(content, Mapping) else {}
    # Only entries with keys of this model: others, such as the class prior, are no weights of it.
    states = {entry: _find(value) for entry, value in content.items()}
    entries = [entry for entry, place in states.items() if place and expected & set(_strip(place[1], expected)[1])]
    place = _find(content) if key is None else _find(content.get(key), key)
    if place is None and key is not None:
        there = f"try {', '.join(map(repr, entries))}" if entries else "give no key to load a plain state_dict"
        raise UserError(f"{path} holds no weights under {key!r}; {there}")
    if place is None:
        raise UserError(
            f"{path} holds no state_dict: expected tensors at the top or under one of {', '.join(WRAPPERS)}"
        )
    keys, state = place
    if not keys:
        return "a plain state_dict", state
    averaged = keys[-1] in AVERAGED or (keys[-1] == "model_state_dict" and UNAVERAGED in content)
    others = ", ".join(repr(entry) for entry in entries if entry != keys[0])
    layout = f"the {'averaged weights' if averaged else 'state_dict'} under {'.'.join(keys)!r}"
    return layout + (f" (also there: {others})" if others else ""), state


def _constant_of(key: str) -> str | None:
    """The buffer of ``normalize_input`` for the constant saved as ``key``; None if it is none."""
    return NORMALIZATION.get(key.rpartition(".")[2])


def _list(keys: list[str], most: int = 8) -> str:
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")


def _describe_ignored(model: nn.Module, ignored: StateDict) -> str:
    """Describe the ignored keys, with a warning if ``model`` does not apply their normalization."""
    words = f"{len(ignored)} keys ignored ({_list(list(ignored), 2)})"
    buffers = {"input_mean": torch.zeros(1), "input_std": torch.ones(1), **dict(model.named_buffers())}
    for key, value in ignored.items():
        if name := _constant_of(key):
            saved, applied = value.flatten().float(), buffers[name].flatten().float().cpu()
            comparable = 1 in (saved.numel(), applied.numel()) or saved.numel() == applied.numel()
            if not (comparable and torch.allclose(saved, applied, rtol=0, atol=1e-3)):
                values = _list([f"{item:.4g}" for item in saved.tolist()])
                return f"{words}; warning: this model does not apply their {key}, {values}: set model.mean, model.std"
    return words


def check_finite(state: Mapping[str, Tensor], source: Path | str) -> None:
    """Raise UserError, which names ``source`` and the tensors, if a value of ``state`` is NaN or infinite."""
    if broken := sorted(k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()):
        raise UserError(
            f"{source} has NaN or infinite values in {len(broken)} tensors ({_list(broken)}): its training diverged "
            "or the file is damaged; use another checkpoint"
        )


def _check_fit(expected: StateDict, state: StateDict, model: nn.Module, path: Path) -> None:
    """Raise UserError, which lists the tensors in a note if there are many, unless ``state`` has those ``expected``."""
    shapes, own = ({key: tuple(tensors[key].shape) for key in sorted(tensors)} for tensors in (state, expected))
    misfits = {
        "missing": [f"{key} {shape}" for key, shape in own.items() if key not in shapes],
        "unexpected": [f"{key} {shape}" for key, shape in shapes.items() if key not in own],
        "of another shape": [
            f"{key} {shape} for {own[key]}" for key, shape in shapes.items() if own.get(key, shape) != shape
        ],
    }
    misfits = {kind: tensors for kind, tensors in misfits.items() if tensors}
    if not misfits:
        return
    counts = "; ".join(f"{len(tensors)} {kind}: {_list(tensors, SHOWN)}" for kind, tensors in misfits.items())
    error = UserError(
        f"{path} does not fit this {type(model).__name__} and was not loaded; {counts}; choose the model and the "
        "number of classes that it was trained with"
    )
    if any(len(tensors) > SHOWN for tensors in misfits.values()):  # otherwise the line has named all of them
        most, lines = SCREEN // len(misfits) - 1, []
        for kind, tensors in misfits.items():
            more = [f"and {len(tensors) - most} more"] if len(tensors) > most else []
            lines += [f"{kind}: {tensor}" for tensor in [*tensors[:most], *more]]
        error.add_note("\n".join(lines))
    raise error


def _load(model: nn.Module, content: Any, path: Path, key: str | None = None) -> str:
    """Load the weights in ``content``, read from ``path``, and return one line that describes the file.

    Raises UserError, and loads nothing, if keys or shapes do not match, or if a value is not finite.
    """
    expected = model.state_dict()
    layout, state = _unwrap(content, set(expected), path, key)
    prefixes, state = _strip(state, set(expected))
    if rename := getattr(model, "official_names", None):
        state = rename(state)
    ignored = {k: v for k, v in state.items() if k not in expected and (k.startswith(UNUSED) or _constant_of(k))}
    state = {k: v for k, v in state.items() if k not in ignored}
    # Files of torch 0.3 and before have no num_batches_tracked, which nothing but an averaging BatchNorm reads.
    counters = {k: v for k, v in expected.items() if k.endswith("num_batches_tracked")}
    _check_fit({k: v for k, v in expected.items() if k in state or k not in counters}, state, model, path)
    check_finite(state, path)
    if prefixes:
        layout += f", prefix {''.join(prefixes)!r} stripped"
    if ignored:
        layout += f", {_describe_ignored(model, ignored)}"
    with torch.no_grad():
        model.load_state_dict({**counters, **state})
    return f"{path}: {layout}"


def load_checkpoint(model: nn.Module, path: str | Path, key: str | None = None) -> str:
    """Load the weights in ``path`` into ``model``. Returns one line that describes the layout of the file.

    Accepts plain state_dicts, the usual wrappers (``state_dict``, ``model``, ``ema`` …) and prefixes (``module.`` …),
    TRADES' unused ``sub_block1``, normalization constants (ignored: pass them to ``create_model``), DM-Improves-AT's
    files (their average is loaded) and this project's own checkpoints. ``key`` names the entry to load, such as
    ``average``. Raises UserError if the file is missing, is not a safe checkpoint, has no such entry, does not fit the
    model, or contains NaN or infinite values; nothing is loaded then.
    """
    path = Path(path)
    return _load(model, read(path, map_location="cpu"), path, key)


def weights_in(path: Path, expected: set[str]) -> StateDict:
    """Read the weights in ``path``, without prefixes before ``expected`` keys, whether or not they fit a network.

    Without ``expected`` keys all known prefixes are stripped.
    """
    _, state = _unwrap(read(path, map_location="cpu"), expected, path, None)
    return _strip(state, expected)[1]


def check_initial_weights(path: str | Path) -> None:
    """Raise UserError if there is no file ``path``."""
    if not Path(path).is_file():
        raise UserError(
            f"there is no file trainer.initial_weights={path}: copy the weights there (those of USB are in the "
            "releases of github.com/microsoft/Semi-supervised-learning), or set it to null for a random start"
        )


def load_initial_weights(model: nn.Module, path: str | Path) -> str:
    """Load the weights in ``path`` into ``model``, all but the classifier. Returns one line that describes the file.

    As in USB, keys that begin with one of ``CLASSIFIERS`` are left out, and those of the model keep their random start.
    All others must agree. Raises UserError as ``load_checkpoint``.
    """
    path = Path(path)
    check_initial_weights(path)
    own = model.state_dict()
    classifier = {key: value for key, value in own.items() if key.startswith(CLASSIFIERS)}
    state = weights_in(path, set(own) - set(classifier))
    kept = {key: value for key, value in state.items() if not key.startswith(CLASSIFIERS)}
    return f"{_load(model, {**kept, **classifier}, path)}, without the classifier"


def load_encoder(network: nn.Module, name: str | None) -> None:
    """Load the ImageNet weights ``name``, a file or weights of timm, into ``network``, and print how many fit.

    Tensors whose names and shapes agree are loaded, with the stem renamed to that of ``PSPNet``. Nothing is read if
    ``name`` is None, or if ``network`` is on the meta device, as in checks of a configuration. Raises UserError if
    there are no such weights, if they cannot be loaded, or if nothing agrees.
    """
    if name is None:
        return
    path = Path(name) if Path(name).is_file() else None
    cfg = None if path else timm.models.get_pretrained_cfg(name)
    if not path and (cfg is None or not cfg.has_weights):
        raise UserError(
            f"task.encoder_weights={name} is no file, and timm publishes no weights of this name: see "
            "timm.list_pretrained()"
        )
    own = network.state_dict()
    if next(iter(own.values())).is_meta:
        return
    try:
        state = weights_in(path, set(own)) if path else timm.create_model(name, pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"the weights of {name} cannot be loaded: {first_line(error)}; set task.encoder_weights"
        ) from None
    renamed = with_prefixes(state, STEMS["semseg" if "conv3.weight" in state else "timm"])
    fitting = {key: value for key, value in renamed.items() if key in own and own[key].shape == value.shape}
    if not fitting:
        raise UserError(f"no weights of {name} fit {type(network).__name__}: choose those of its encoder")
    with torch.no_grad():
        for key, value in fitting.items():
            own[key].copy_(value)  # a state_dict shares the network's memory
    say(f"{name}: {len(fitting)} of {len(renamed)} tensors loaded into the encoder")
