"""The typed fields of every configuration.

Every value that Python reads as ``config.x`` is declared here, so that a wrong key or type fails when the configuration
is composed. The arguments of a constructor are YAML with ``_target_``; that constructor checks them. The line under
each field is printed by ``dkl train --help`` and ``dkl evaluate --help``.
"""

from dkl.config.schema.data import AugmentConfig, DataConfig, SyntheticConfig, UnlabeledConfig
from dkl.config.schema.evaluation import WEIGHTS, EvaluationConfig, prediction_text
from dkl.config.schema.roots import BudgetConfig, EvaluateConfig, PathsConfig, TargetConfig, TrainConfig
from dkl.config.schema.training import OptimizerConfig, OptimizerName, Precision, SelectionConfig, TrainerConfig

__all__ = [
    "WEIGHTS",
    "AugmentConfig",
    "BudgetConfig",
    "DataConfig",
    "EvaluateConfig",
    "EvaluationConfig",
    "OptimizerConfig",
    "OptimizerName",
    "PathsConfig",
    "Precision",
    "SelectionConfig",
    "SyntheticConfig",
    "TargetConfig",
    "TrainConfig",
    "TrainerConfig",
    "UnlabeledConfig",
    "prediction_text",
]
