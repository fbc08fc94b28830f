"""The choices of every configuration group, each with the first line of its file."""

from dkl.config.choices import choices

USAGE = {
    "train": "dkl train [-m] [GROUP=CHOICE …] [KEY=VALUE …]   train one run, or a sweep with -m and comma lists",
    "evaluate": "dkl evaluate run=FOLDER | checkpoint=FILE model=… data=… [attacks=…] [KEY=VALUE …]",
    "reproduce": "dkl reproduce table=N|figure=N|experiment=NAME [row=NAME] [seed=0,1] [budget=…] [dry_run=true] …",
    "tables": "dkl tables [--html] [results=FOLDER] [smoke=true]   fold records into tables; and figures and a page",
}

GROUPS = {
    "train": ("data", "model", "task", "loss", "attack", "averaging", "recipe", "budget", "logger"),
    "evaluate": ("data", "model", "logger"),
}


def _listing(title: str, lines: dict[str, str]) -> str:
    width = max(len(name) for name in lines)
    return f"{title}\n" + "".join(f"  {name:{width}}  {line}\n" for name, line in lines.items())


def overview() -> str:
    """The page of ``dkl --help``."""
    page = "Decoupled KL losses: adversarial training, AutoAttack, tables.\n\n"
    page += "".join(f"  {usage}\n" for usage in USAGE.values())
    return page + "\nEach has --help. Values are Hydra overrides; the README shows the common ones.\n"


def page(command: str) -> str:
    """The page of ``dkl <command> --help``."""
    from dkl.config import compose_config  # composing is slow to import; only help with values needs it

    text = f"{USAGE[command]}\n\n"
    if command == "reproduce":
        return text + _listing("experiments", choices("experiments"))
    for group in GROUPS.get(command, ()):
        text += _listing(group, choices(group)) + "\n"
    if command in GROUPS:
        from omegaconf import OmegaConf

        text += f"values, with their defaults\n{OmegaConf.to_yaml(compose_config(command, []))}"
        text += f"\nHydra's own options: dkl {command} --hydra-help\n"
    return text
