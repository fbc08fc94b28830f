"""The entry point: run the command, and print a user's mistake as one message."""

import os
import sys
from pathlib import Path

from dkl import __version__
from dkl.cli import help as help_pages
from dkl.cli.commands import COMMANDS
from dkl.cli.completion import complete
from dkl.errors import UserError, choose_from, first_line, for_the_terminal
from dkl.runtime.interruption import Interrupted, interruptible

COMPLETION = ("-sc", "--shell-completion")
"""Flags by which a shell asks what may follow."""


def main(arguments: list[str] | None = None) -> None:
    """Run ``dkl`` with ``arguments``, by default the process's. Exits with 2 after a mistake of the user.

    SIGINT (Ctrl-C) and SIGTERM save the state if that is quick, print one line and exit with 130 or 143.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    command, *rest = arguments or ["--help"]
    if command in ("-h", "--help"):
        print(help_pages.overview(), end="")
    elif command == "--version":
        print(f"dkl {__version__}")
    elif command not in (*COMMANDS, *COMPLETION):
        print(f"error: there is no command {command!r}: {choose_from(command, COMMANDS)}", file=sys.stderr)
        raise SystemExit(2)
    elif command in COMMANDS and {"-h", "--help"} & set(rest):
        print(help_pages.page(command), end="")
    else:
        try:
            with interruptible():
                complete(arguments) if command in COMPLETION else COMMANDS[command](rest)
        except Interrupted as stop:
            stop.report()
            raise
        except BrokenPipeError:  # the reader of the output, such as head, has ended
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        except ImportError as error:
            if Path(error.path or "").suffix in ("", ".py"):  # not of a library in machine code
                raise
            print(
                f"error: {first_line(error)}: a library cannot be loaded, mostly for lack of memory: free some, or "
                "raise the limit that `ulimit -v` shows",
                file=sys.stderr,
            )
            raise SystemExit(2) from None
        except (UserError, OSError) as error:
            print(for_the_terminal(error), file=sys.stderr)
            raise SystemExit(2) from None
