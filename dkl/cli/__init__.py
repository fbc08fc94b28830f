"""``dkl train | evaluate | reproduce | tables``: Hydra overrides in, results out."""

from dkl.cli.main import main

__all__ = ["main"]
