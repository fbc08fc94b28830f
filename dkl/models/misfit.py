"""Mismatches between a network and a file of weights: in one line, and tensor by tensor on one screen."""

from collections.abc import Mapping

from torch import Tensor

SCREEN = 40
"""Lines of the list of all tensors that do not fit."""

SHOWN = 4
"""Tensors of each kind that the one line names."""

Misfits = dict[str, dict[str, str]]
"""Maps each kind of misfit, such as ``missing``, to the keys of its tensors with their shapes as text."""


def find_misfits(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Misfits:
    """Compare the tensors of a file, ``state``, with those that a network has; empty if all fit."""

    def shapes(keys: set[str], tensors: Mapping[str, Tensor]) -> dict[str, str]:
        return {key: str(tuple(tensors[key].shape)) for key in sorted(keys)}

    own, theirs = set(expected), set(state)
    reshaped = {key for key in own & theirs if state[key].shape != expected[key].shape}
    found = {
        "missing": shapes(own - theirs, expected),
        "unexpected": shapes(theirs - own, state),
        "of another shape": {
            key: f"{tuple(state[key].shape)} for {tuple(expected[key].shape)}" for key in sorted(reshaped)
        },
    }
    return {kind: tensors for kind, tensors in found.items() if tensors}


def in_one_line(misfits: Misfits) -> str:
    """How many tensors of each kind do not fit, and the first of them."""
    parts = []
    for kind, tensors in misfits.items():
        named = ", ".join(f"{key} {shape}" for key, shape in [*tensors.items()][:SHOWN])
        more = f" and {len(tensors) - SHOWN} more" if len(tensors) > SHOWN else ""
        parts.append(f"{len(tensors)} {kind}: {named}{more}")
    return "; ".join(parts)


def on_one_screen(misfits: Misfits) -> str:
    """List the tensors that do not fit, one line per module, in at most ``SCREEN`` lines.

    If there are more modules, each kind shows equally many, and its last line counts the rest.
    """
    lines = {kind: _module_lines(kind, tensors) for kind, tensors in misfits.items()}
    # The kinds with few lines leave their share to the others.
    left = SCREEN
    shares: dict[str, int] = {}
    for kind in sorted(lines, key=lambda kind: len(lines[kind])):
        shares[kind] = left // (len(lines) - len(shares))
        left -= min(shares[kind], len(lines[kind]))
    return "\n".join(line for kind in lines for line in _cut(kind, lines[kind], shares[kind]))


def _cut(kind: str, lines: list[str], most: int) -> list[str]:
    rest = len(lines) - most + 1
    return lines if len(lines) <= most else [*lines[: most - 1], f"{kind}: … and {rest} more modules"]


def _module_lines(kind: str, tensors: Mapping[str, str]) -> list[str]:
    modules: dict[str, list[str]] = {}
    for key, shape in tensors.items():
        module, _, name = key.rpartition(".")
        modules.setdefault(module, []).append(f"{name} {shape}")
    return [f"{kind}: {module or 'at the top'}: {', '.join(names)}" for module, names in modules.items()]
