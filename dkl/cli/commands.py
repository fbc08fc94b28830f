"""One function a command; each takes the arguments behind its name."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dkl.cli import hydra_app
from dkl.console import say
from dkl.errors import UserError
from dkl.reproduction.options import parse_bool


def train(arguments: list[str]) -> None:
    """``dkl train``: one run, or a sweep with ``-m``."""
    from dkl.assembly import preflight
    from dkl.assembly import train as run
    from dkl.training import objective

    hydra_app.run("train", arguments, preflight, lambda cfg: objective(run(cfg)))


def evaluate(arguments: list[str]) -> None:
    """``dkl evaluate``: a record of a run, or of anyone's weights."""
    from dkl.evaluation import evaluate as run

    def check(cfg: DictConfig) -> None:
        if bool(cfg.run) == bool(cfg.checkpoint):
            raise UserError("name what to evaluate: run=FOLDER, or checkpoint=FILE with model=… and data=…")

    keys = [text.lstrip("+~").partition("=")[0] for text in arguments]
    if "run" in keys and any(key.partition(".")[0] in ("data", "model") for key in keys):
        raise UserError("data and model are for checkpoint=FILE: leave them out, run=FOLDER is evaluated with its own")
    hydra_app.run("evaluate", arguments, check, run)


def reproduce(arguments: list[str]) -> None:
    """``dkl reproduce``: train, evaluate and tabulate what a manifest of ``experiments`` lists."""
    from dkl.reproduction.reproduce import reproduce as run

    run(arguments)


def _options(arguments: list[str], defaults: dict[str, Any]) -> DictConfig:
    """``KEY=VALUE`` arguments over ``defaults``. Raises UserError on a key that is not among them."""
    given = OmegaConf.from_dotlist(arguments)
    if unknown := sorted(str(key) for key in given if key not in defaults):
        raise UserError(f"there is no option {unknown[0]!r}; there are {', '.join(defaults)}")
    merged = OmegaConf.merge(defaults, given)
    assert isinstance(merged, DictConfig)
    return merged


def tables(arguments: list[str]) -> None:
    """``dkl tables``: fold the records under ``results`` into tables; with ``--html`` figures and the page too."""
    from dkl.config import compose_config
    from dkl.reproduction import results as fold

    default = compose_config("evaluate", []).paths.results
    html = "--html" in arguments
    options = _options([text for text in arguments if text != "--html"], {"results": default, "smoke": False})
    results, smoke = Path(options.results), parse_bool("smoke", str(options.smoke))
    report = fold.tabulate(results, include_smoke=smoke)
    print(report.markdown)
    figures = fold.draw(results, include_smoke=smoke) if html else []
    pages = [fold.write_page(results, report, figures)] if html else []
    for path in [*report.written, *figures, *pages]:
        say(f"written: {path}")
    for message in [*(f"left out: {problem}" for problem in report.problems), *report.skipped]:
        say(message)


COMMANDS = {"train": train, "evaluate": evaluate, "reproduce": reproduce, "tables": tables}
