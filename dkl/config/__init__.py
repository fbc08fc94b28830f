"""Configurations: typed root, composition from YAML, checks, and the hash that names a run."""

from dkl.config.check import check, check_complete, check_label, check_subject, check_weights
from dkl.config.compose import compose_config, load_config, register, shipped, typed
from dkl.config.composed import CachedCompose, ComposedRun
from dkl.config.identity import (
    batch_norm_parts,
    changed_setting,
    config_hash,
    hashed,
    label,
    loss_name,
    model_name,
    row_identity,
    run_folder,
)
from dkl.config.schema import (
    WEIGHTS,
    DataConfig,
    EvaluateConfig,
    EvaluationConfig,
    OptimizerConfig,
    OptimizerName,
    Precision,
    SelectionConfig,
    TargetConfig,
    TrainConfig,
    TrainerConfig,
)
from dkl.config.unknown import check_known

__all__ = [
    "WEIGHTS",
    "CachedCompose",
    "ComposedRun",
    "DataConfig",
    "EvaluateConfig",
    "EvaluationConfig",
    "OptimizerConfig",
    "OptimizerName",
    "Precision",
    "SelectionConfig",
    "TargetConfig",
    "TrainConfig",
    "TrainerConfig",
    "batch_norm_parts",
    "changed_setting",
    "check",
    "check_complete",
    "check_known",
    "check_label",
    "check_subject",
    "check_weights",
    "compose_config",
    "config_hash",
    "hashed",
    "label",
    "load_config",
    "loss_name",
    "model_name",
    "register",
    "row_identity",
    "run_folder",
    "shipped",
    "typed",
]
