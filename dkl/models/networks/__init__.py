"""The networks of the paper's tables, one family per file. Each new file registers its networks with timm by itself."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
