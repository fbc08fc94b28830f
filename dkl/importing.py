"""Import what a user names as ``package.module:function``, from the current folder or the Python path.

Its code runs, so only a user's own command may name it, never a file.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

from dkl.errors import UserError, first_line, similar


def import_object(text: str, key: str = "model", what: str = "a function or class that returns a network") -> Any:
    """Import what ``text``, a value of the configuration's ``key``, names. Raises UserError unless it is callable."""
    module, _, path = text.partition(":")
    given = f"{key}={text}"
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()  # the file may be new
    arguments = sys.argv
    try:
        sys.argv = [module]  # a script that parses arguments on import does not get those of this command
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if f"{module}.".startswith(f"{error.name}."):
            where = f"the current folder ({here}) and the Python path"
            raise UserError(f"{given}: there is no module {error.name!r} in {where}") from None
        raise UserError(f"{given}: it imports {error.name}, which is not installed") from None
    except SystemExit:
        raise UserError(f"{given}: {module} ends the program when it is imported: guard it by __name__") from None
    except Exception as error:
        raise UserError(f"{given}: importing it fails with {type(error).__name__}: {first_line(error)}") from None
    finally:
        sys.argv = arguments
    for name in path.split("."):
        if not hasattr(found, name):
            public = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
            close = similar(name, public)
            hint = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(public[:8])}"
            raise UserError(f"{given}: {module} has no {name!r}: {hint}")
        found = getattr(found, name)
    if not callable(found):
        raise UserError(f"{given} is a {type(found).__name__}: name {what}")
    return found
