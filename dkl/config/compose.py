"""Where the YAML choices lie, and how they become one configuration."""

from pathlib import Path
from typing import TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]  # OmegaConf's, which has no types

from dkl.config.schema import DataConfig, EvaluateConfig, TrainConfig
from dkl.errors import UserError

T = TypeVar("T")
PACKAGE = Path(__file__).resolve().parents[1]


def shipped(folder: str) -> Path:
    """``configs`` or ``experiments``: beside the package in a checkout, inside it in an installed wheel."""
    for base in (PACKAGE.parent, PACKAGE):
        if (base / folder / ("train.yaml" if folder == "configs" else "quickstart.yaml")).is_file():
            return base / folder
    raise UserError(f"the {folder} folder is missing from this installation of dkl: install it again")


def register() -> None:
    """Make the typed roots known to Hydra's defaults lists."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="evaluate_schema", node=EvaluateConfig)


def share_of(epochs: int, whole: int, trained: int) -> int:
    """``epochs`` of ``whole``, cut to the same share of ``trained`` epochs where these are fewer, but at least one."""
    return min(epochs, max(1, round(epochs * trained / whole)))


OmegaConf.register_new_resolver("share_of", share_of, replace=True)  # on import: workers of a run do not compose


def compose_config(root: str, overrides: list[str]) -> DictConfig:
    """The configuration ``root`` (``train`` or ``evaluate``) with Hydra overrides, without starting a Hydra job."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(shipped("configs")), version_base="1.3"):
        return compose(root, overrides)


def load_config(folder: Path) -> DictConfig:
    """The configuration of the run in ``folder``; keys that came since it was trained have their defaults.

    Raises UserError where there is none, or where it has keys that are no more.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"run={folder} is no run's folder (it has no config.yaml); dkl train prints its name")
    try:
        cfg = OmegaConf.merge(OmegaConf.structured(TrainConfig(data=DataConfig())), OmegaConf.load(path))
    except (OmegaConfBaseException, YAMLError) as error:
        said = str(error).partition("\n")[0]
        raise UserError(f"{path} is not of this version of dkl: {said}; use the version that trained it") from None
    assert isinstance(cfg, DictConfig)
    return cfg


def typed(cfg: DictConfig, root: type[T]) -> T:
    """Convert ``cfg`` to its dataclass ``root``, with all interpolations resolved; other nodes become dictionaries."""
    config = OmegaConf.to_object(cfg)
    if not isinstance(config, root):  # read from a file, which keeps no types
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(root), cfg))
    assert isinstance(config, root)
    return config
