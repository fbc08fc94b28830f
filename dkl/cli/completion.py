"""Tab completion in a shell: of the commands, of their options, and by Hydra of configurations.

``eval "$(dkl train -sc install=bash)"`` installs it. The shell then calls ``dkl -sc query=bash`` with the line so far
in ``COMP_LINE``.
"""

import os
import re

from dkl.cli import hydra_app
from dkl.cli.help import GROUPS, OPTIONS, USAGE


def complete(arguments: list[str]) -> None:
    """Print the words that may follow in ``COMP_LINE``; ``arguments`` are such as ``-sc query=bash``."""
    program, _, rest = os.environ.get("COMP_LINE", "").partition(" ")
    command, space, words = rest.lstrip().partition(" ")
    if not program or (space and command in GROUPS):
        os.environ["COMP_LINE"] = f"{program} {words}"  # to Hydra all words after the first are overrides
        hydra_app.complete(command or "train", arguments)
    elif space:
        keys = re.findall(r"[\w./]+=", " ".join(OPTIONS.get(command, {})))
        print(" ".join(key for key in keys if key != "KEY="))
    else:
        print(" ".join(USAGE))
