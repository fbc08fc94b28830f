"""Composed configurations of training runs, with what the rest of the package asks of them.

Whoever plans, reports or estimates runs reads ``settings`` and the identity; the composed ``cfg`` itself is only passed
on to ``dkl.assembly`` and ``dkl.evaluation``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from dkl.config.compose import compose_config, typed
from dkl.config.identity import config_hash, hashed, row_identity, run_folder
from dkl.config.overrides import compose_explained, quoted
from dkl.config.schema import TrainConfig


@dataclass(frozen=True, eq=False)
class ComposedRun:
    """The composed configuration ``cfg`` of one run of ``dkl train``."""

    cfg: DictConfig

    @cached_property
    def settings(self) -> TrainConfig:
        """The typed configuration."""
        return typed(self.cfg, TrainConfig)

    @cached_property
    def folder(self) -> Path:
        """The folder of the run."""
        return run_folder(self.cfg)

    @cached_property
    def config_hash(self) -> str:
        """The hash that names the run."""
        return config_hash(self.cfg)

    @cached_property
    def row(self) -> str:
        """The identity of the run's row in tables."""
        return row_identity(hashed(self.cfg))

    def evaluation(self, overrides: Sequence[str]) -> DictConfig:
        """The configuration of ``dkl evaluate`` for this run, on the devices of its training, with ``overrides``."""
        paths = [f"paths.{key}={quoted(value)}" for key, value in self.cfg.paths.items()]
        trainer = self.settings.trainer
        device = [f"device={trainer.device}", f"devices={trainer.devices}"]
        return compose_config("evaluate", [f"run={quoted(str(self.folder))}", *paths, *device, *overrides])

    @property
    def downloads_teacher(self) -> bool:
        """Whether the teacher's weights are the published ones, which are downloaded when training starts."""
        return bool(OmegaConf.select(self.cfg, "task.teacher.pretrained"))

    def with_untrained_teacher(self) -> "ComposedRun":
        """This run with a freshly initialized teacher, for checks before the teacher's weights exist."""
        # Only the teacher is resolved: values that are still missing elsewhere are reported by the check.
        cfg, teacher = self.cfg.copy(), OmegaConf.to_container(self.cfg.task.teacher, resolve=True)
        assert isinstance(teacher, dict)
        network = {key: teacher[key] for key in ("name", "num_classes", "in_chans", "mean", "std")}
        OmegaConf.update(cfg, "task.teacher", {"_target_": "dkl.models.create_model", **network}, merge=False)
        return ComposedRun(cfg)


class CachedCompose:
    """Composes training configurations once per row; those of its seeds are copies. Composing takes a tenth of a second
    or more, and a table has up to a hundred jobs."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, overrides: Sequence[str]) -> ComposedRun:
        """Compose the run of ``overrides``, which may include the seed."""
        seeds = [text for text in overrides if text.startswith("seed=")]
        rest = tuple(text for text in overrides if not text.startswith("seed="))
        if rest not in self._known:
            self._known[rest] = compose_explained("train", rest)
        cfg = self._known[rest].copy()
        if seeds:
            cfg.seed = int(seeds[-1].partition("=")[2])
        return ComposedRun(cfg)
