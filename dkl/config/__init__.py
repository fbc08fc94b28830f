"""Configurations: typed root, composition from YAML, checks, and the hash that names a run."""

from dkl.config.check import check
from dkl.config.compose import compose_config, load_config, register, shipped, typed
from dkl.config.identity import config_hash, hashed, label, loss_name, model_name, row_identity, run_folder
from dkl.config.schema import (
    DataConfig,
    EvaluateConfig,
    EvaluationConfig,
    Node,
    OptimizerConfig,
    OptimizerName,
    Precision,
    SelectionConfig,
    TrainConfig,
    TrainerConfig,
)

__all__ = [
    "DataConfig",
    "EvaluateConfig",
    "EvaluationConfig",
    "Node",
    "OptimizerConfig",
    "OptimizerName",
    "Precision",
    "SelectionConfig",
    "TrainConfig",
    "TrainerConfig",
    "check",
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
