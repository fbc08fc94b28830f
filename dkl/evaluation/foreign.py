"""A network trained elsewhere, as ``dkl evaluate`` names it: what is evaluated, before anything is built."""

from pathlib import Path

from dkl.config import EvaluateConfig
from dkl.errors import UserError, shortened
from dkl.evaluation.subject import Subject
from dkl.evaluation.weights import Weights
from dkl.models.sources import Request, graph_source, is_graph, resolve


def check_foreign(asked: EvaluateConfig) -> None:
    """Raise UserError if a foreign network lacks its data or model, or has settings that do not apply to it."""
    named, held = bool(asked.model or asked.network), asked.checkpoint and is_graph(Path(asked.checkpoint))
    if not asked.data or not (named or held):
        raise undescribed(asked.checkpoint, asked.network)
    if held and named:
        raise UserError(f"checkpoint={asked.checkpoint} holds its network: leave out model=…")
    if asked.model and asked.network:
        raise UserError("model and network both name a network: leave one out")
    if asked.model and (asked.arguments or asked.mean or asked.std):
        raise UserError("arguments, mean and std are for model=package.module:function: use model.KEY=VALUE")
    if asked.weights:
        raise UserError(
            f"weights={asked.weights} chooses among the weights of a run: leave it out with checkpoint=FILE"
        )


def undescribed(checkpoint: str | None, network: str | None) -> UserError:
    """The error about a foreign network without its data or model. Raises UserError if its file does not exist."""
    if checkpoint:
        check_checkpoint(Path(checkpoint))
    named = f"model={network}" if network else f"checkpoint={checkpoint}"
    return UserError(f"{named} does not say its network and data: add model=… data=…")


def check_checkpoint(path: Path) -> None:
    """Raise UserError if there is no file ``path``."""
    if not path.is_file():
        raise UserError(f"there is no checkpoint at {shortened(path)}; check the path, or train the run first")


def foreign_subject(asked: EvaluateConfig) -> Subject:
    """Return the subject of a network trained elsewhere. Raises UserError if its network or data are not named."""
    check_foreign(asked)
    assert asked.data
    path = Path(asked.checkpoint) if asked.checkpoint else None
    if asked.model:
        assert path  # whether it exists is checked after the other settings
        return Subject(method=asked.label or path.stem, data=asked.data, model=asked.model, weights=Weights(path))
    if path is not None:
        check_checkpoint(path)
    request = Request(
        num_classes=asked.data.num_classes,
        shape=asked.data.shape,
        dataset=asked.data.name,
        norm=asked.norm,
        checkpoint=path,
        arguments=asked.arguments,
        mean=asked.mean,
        std=asked.std,
        trust=asked.trust,
    )
    source = resolve(asked.network, request) if asked.network else graph_source(Path(str(path)), request)
    weights = Weights(source.weights or Path(str(asked.network).replace(":", "/")))
    method = asked.label or source.label or weights.path.stem
    key = "arguments" if asked.arguments else "model"
    return Subject(method=method, data=asked.data, model=source.model, weights=weights, source=source, key=key)
