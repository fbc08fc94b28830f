"""Composition: from the YAML files in ``configs`` to one configuration."""

from pathlib import Path
from typing import TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]  # OmegaConf's, which has no types

from dkl.config.schema import DataConfig, EvaluateConfig, TrainConfig
from dkl.errors import UserError, first_line

T = TypeVar("T")
PACKAGE = Path(__file__).resolve().parents[1]


def shipped(folder: str) -> Path:
    """Return the path of ``configs`` or ``experiments``: beside the package in a checkout, inside it in a wheel."""
    for base in (PACKAGE.parent, PACKAGE):
        if (base / folder / ("train.yaml" if folder == "configs" else "quickstart.yaml")).is_file():
            return base / folder
    raise UserError(f"the {folder} folder is missing from this installation of dkl: install it again")


def register() -> None:
    """Register the typed roots, so that the defaults lists of ``configs`` can name them."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="evaluate_schema", node=EvaluateConfig)


def scaled_epochs(epochs: int, whole: int, trained: int) -> int:
    """Return the same share of ``trained`` epochs as ``epochs`` is of ``whole``, at most ``epochs`` and at least 1."""
    return min(epochs, max(1, round(epochs * trained / whole)))


# On import, because the processes of a run resolve a configuration without composing one. The resolver keeps its name:
# the config.yaml of distillation runs contains it unresolved.
OmegaConf.register_new_resolver("share_of", scaled_epochs, replace=True)


def compose_config(root: str, overrides: list[str], *, with_hydra: bool = False) -> DictConfig:
    """Compose the configuration ``root`` (train or evaluate) with Hydra overrides, without starting a Hydra job.

    With ``with_hydra`` it contains Hydra's own configuration too.
    """
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(shipped("configs")), version_base="1.3"):
        return compose(root, overrides, return_hydra_config=with_hydra)


def load_config(folder: Path) -> DictConfig:
    """Load the configuration of the run in ``folder``; keys added since it was trained get their defaults.

    Raises UserError if there is none, or if it has keys that no longer exist.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(
            f"run={folder} is not the folder of a run (it has no config.yaml); dkl train prints the folder's name"
        )
    try:
        cfg = OmegaConf.merge(OmegaConf.structured(TrainConfig(data=DataConfig())), OmegaConf.load(path))
        if missing := sorted(OmegaConf.missing_keys(cfg)):
            raise UserError(f"{path} is not of this version of dkl: it has no {missing[0]}; train the run again")
    except (OmegaConfBaseException, YAMLError) as error:
        reason = first_line(error)
        raise UserError(f"{path} is not of this version of dkl: {reason}; use the version that trained it") from None
    assert isinstance(cfg, DictConfig)
    return cfg


def typed(cfg: DictConfig, root: type[T]) -> T:
    """Convert ``cfg`` to its dataclass ``root``, with all interpolations resolved; other nodes become dictionaries."""
    config = OmegaConf.to_object(cfg)
    if not isinstance(config, root):  # read from a file: YAML keeps no types
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(root), cfg))
    assert isinstance(config, root)
    return config
