"""Networks of the adversarial training tables. A new file here is registered with timm without further edits."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
