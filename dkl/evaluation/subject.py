"""Who is evaluated and how: settings asked for, completed from the run, the data set and the defaults."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dkl import checkpoint
from dkl.attacks import NORMS, Norm, parse_eps
from dkl.config import EvaluationConfig, config_hash, hashed, label, row_hash
from dkl.errors import UserError
from dkl.evaluation.suites import parse_attacks


@dataclass(frozen=True)
class Subject:
    """What is evaluated: its configuration (``data`` and ``model`` at least), its weights' file and its names."""

    cfg: DictConfig
    weights: Path
    method: str
    budget: str
    seed: int | None
    row_hash: str | None = None
    config_hash: str = ""
    training: dict[str, Any] | None = None

    @property
    def title(self) -> str:
        """Method and seed, fit for a file name."""
        seed = "foreign" if self.seed is None else f"s{self.seed}"
        return f"{self.method.replace('/', '_').replace(' ', '_')}-{seed}"


def own_run(cfg: DictConfig) -> Subject:
    """A finished run of ``dkl train``."""
    folder = Path(cfg.run)
    if not (folder / "config.yaml").is_file():
        raise UserError(f"run={cfg.run} is no run's folder (it has no config.yaml); dkl train prints its name")
    trained = OmegaConf.load(folder / "config.yaml")
    assert isinstance(trained, DictConfig)
    trained.paths = cfg.paths
    weights = folder / "checkpoint.pt"
    content = checkpoint.read(weights)
    if "epoch" not in content:
        raise UserError(f"{weights} is not from dkl train; evaluate it by checkpoint={weights} model=… data=…")
    done = content["epoch"]
    if done < trained.trainer.epochs:
        raise UserError(f"{folder} has trained {done} of {trained.trainer.epochs} epochs: finish it, then evaluate")
    name = cfg.label or label(trained)
    return Subject(
        cfg=trained,
        weights=weights,
        method=name,
        budget=trained.budget.name,
        seed=trained.seed,
        row_hash=row_hash(trained),
        config_hash=config_hash(trained),
        training=hashed(trained),
    )


def foreign(cfg: DictConfig) -> Subject:
    """Weights trained elsewhere, for a named model and data set."""
    if not cfg.data or not cfg.model:
        raise UserError(f"checkpoint={cfg.checkpoint} needs the network and the data: add model=… data=…")
    return Subject(
        cfg=cfg, weights=Path(cfg.checkpoint), method=cfg.label or Path(cfg.checkpoint).stem, budget="own", seed=None
    )


@dataclass(frozen=True)
class Protocol:
    """How it is evaluated."""

    attacks: list[str]
    norm: Norm
    eps: float
    eps_text: str
    n: int | None
    batch_size: int
    seed: int


def protocol_of(cfg: DictConfig, subject: Subject) -> Protocol:
    """The settings of ``cfg``; what it leaves open comes from the run, then from the data set and the defaults."""
    trained = subject.cfg
    defaults = OmegaConf.structured(EvaluationConfig)
    if trained is not cfg:
        defaults = OmegaConf.merge(defaults, trained.evaluation)
    attack = trained.get("attack") or {}
    pick = {key: defaults[key] if cfg[key] is None else cfg[key] for key in ("attacks", "n", "batch_size", "seed")}
    eps_text = str(cfg.eps or attack.get("eps") or trained.data.eps)
    norm = cfg.norm or attack.get("norm") or "linf"
    if norm not in NORMS:
        raise UserError(f"norm={norm} must be one of {', '.join(NORMS)}")
    eps = parse_eps(eps_text)
    if eps < 0 or (norm == "linf" and eps > 1):
        raise UserError(f"eps={eps_text} is outside [0, 1]: images are in [0, 1], write 8/255 for 8 grey levels")
    if pick["batch_size"] < 1 or (pick["n"] is not None and pick["n"] < 1):
        raise UserError("batch_size and n must be at least 1")
    return Protocol(parse_attacks(pick.pop("attacks")), norm, eps, eps_text, **pick)
