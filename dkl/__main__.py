"""``python -m dkl`` is ``dkl``."""

from dkl.cli import main

if __name__ == "__main__":
    main()
