"""Configurations: their typed root, their composition from YAML, their checks, and the hash that names a run."""

from dkl.config.check import check
from dkl.config.compose import compose_config, load_config, register, shipped
from dkl.config.identity import config_hash, hashed, identity_of, label, loss_name, row_hash, run_folder
from dkl.config.schema import EvaluateConfig, EvaluationConfig, OptimizerName, Precision, TrainConfig

__all__ = [
    "EvaluateConfig",
    "EvaluationConfig",
    "OptimizerName",
    "Precision",
    "TrainConfig",
    "check",
    "compose_config",
    "config_hash",
    "hashed",
    "identity_of",
    "label",
    "load_config",
    "loss_name",
    "register",
    "row_hash",
    "run_folder",
    "shipped",
]
