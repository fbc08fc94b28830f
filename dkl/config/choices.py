"""The YAML files a user can choose from, each with its first comment line."""

from pathlib import Path

from dkl.config.compose import shipped


def first_line(path: Path) -> str:
    """The first comment of a YAML file that is not a directive to Hydra; empty if there is none."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not line.startswith("# @"):
            return line.lstrip("# ")
    return ""


def choices(group: str) -> dict[str, str]:
    """Choice -> its first line, for a group of ``configs``, or for ``experiments``."""
    folder = shipped("experiments") if group == "experiments" else shipped("configs") / group
    return {path.stem: first_line(path) for path in sorted(folder.glob("*.yaml"))}
