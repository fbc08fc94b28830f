"""``python -m dkl`` is ``dkl``."""

import sys

from dkl.errors import NotInstalledError, for_the_terminal


def main() -> None:
    """Run the command, or name the extra that it needs."""
    try:
        from dkl.cli import main as command
    except NotInstalledError as error:
        print(for_the_terminal(error), file=sys.stderr)
        sys.exit(2)
    command()


if __name__ == "__main__":
    main()
