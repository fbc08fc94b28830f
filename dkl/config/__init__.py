"""Configurations: typed root, composition from YAML, checks, and the hash that names a run."""

import dkl.full
from dkl.config.check import check, check_complete, check_label, check_subject
from dkl.config.compose import check_known, compose_config, load_config, register, shipped, typed
from dkl.config.identity import ComposedRun, changed_setting, compose_run, hashed, model_name, row_identity, run_folder
from dkl.config.schema import DataConfig, EvaluateConfig, EvaluationConfig, TargetConfig, TrainConfig, TrainerConfig
