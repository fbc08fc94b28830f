"""Imported first by packages that need the extra ``full``, so that a light installation names it in one line."""

from importlib.util import find_spec

from dkl.errors import NotInstalledError

_NEEDED = ("hydra", "omegaconf", "pydantic", "timm", "torchvision", "PIL", "scipy", "rich", "safetensors", "filelock")

if _missing := next((name for name in _NEEDED if find_spec(name) is None), None):
    raise NotInstalledError(f"{_missing} is not installed: pip install 'dkl[full]'")
