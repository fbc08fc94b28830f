"""Small files and folders that are wrong in one way each."""

import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf

from dkl.config import compose_config
from dkl.models import create_model
from dkl.storage import checkpoint

HTML = "<!DOCTYPE html><html><body>404: Not Found</body></html>\n"


class RunsCode:
    """An object whose pickle calls ``os.system``."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


def make(root: Path) -> None:
    """Write everything into ``root``."""
    _arrays(root / "data")
    _checkpoints(root / "weights")
    _runs(root / "runs")


def _arrays(folder: Path) -> None:
    """``<name>/train.npz`` and ``test.npz``: 40 images of 8×8 pixels with 4 classes, wrong as their name says."""
    image = np.zeros((40, 8, 8, 1), dtype=np.uint8)
    label = np.arange(40) % 4
    files: dict[str, dict[str, np.ndarray]] = {
        "unnamed": {"x": image, "y": label},
        "negative_labels": {"image": image, "label": label - 1},
        "from_one": {"image": image, "label": label + 1},
    }
    for name, arrays in files.items():
        (folder / name).mkdir(parents=True)
        for part in ("train", "test"):
            np.savez(folder / name / f"{part}.npz", **arrays)


def _checkpoints(folder: Path) -> None:
    """Weights of ``small_cnn`` for digits, 10 classes: ``good.pt``, and others wrong as their name says."""
    folder.mkdir()
    good = create_model("small_cnn", num_classes=10, in_chans=1).state_dict()
    torch.save(good, folder / "good.pt")
    torch.save(create_model("small_cnn", num_classes=7, in_chans=1).state_dict(), folder / "seven_classes.pt")
    first, last = next(iter(good)), next(reversed(good))
    torch.save({key: value for key, value in good.items() if key != last}, folder / "missing_key.pt")
    torch.save({**good, "extra.weight": torch.zeros(1)}, folder / "extra_key.pt")
    torch.save({**good, first: torch.full_like(good[first], torch.nan)}, folder / "nan.pt")
    torch.save({"epoch": 3, "lr": 0.1}, folder / "no_weights.pt")
    torch.save([1, 2, 3], folder / "list.pt")
    torch.save({"state_dict": good, "of": RunsCode()}, folder / "code.pt")
    (folder / "code.pkl").write_bytes(pickle.dumps(RunsCode()))
    whole = (folder / "good.pt").read_bytes()
    (folder / "cut.pt").write_bytes(whole[: len(whole) // 2])
    middle = len(whole) // 2
    (folder / "flipped.pt").write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    (folder / "text.pt").write_text("weights\n")
    (folder / "html.pt").write_text(HTML)
    (folder / "no_bytes.pt").write_bytes(b"")
    (folder / "folder.pt").mkdir()
    with zipfile.ZipFile(folder / "program.pt", "w") as archive:
        archive.writestr("program/constants.pkl", b"")
    (folder / "html.safetensors").write_text(HTML)
    _folders_of_networks(folder)


def _folders_of_networks(folder: Path) -> None:
    """``<name>/config.json`` as on a hub, wrong as their name says."""
    contents = {
        "no_json": HTML,
        "no_architecture": '{"architectures": ["BertModel"]}',
        "other_architecture": '{"architecture": "os.system"}',
        "seven_classes": '{"architecture": "small_cnn", "num_classes": 7}',
        "no_weights": '{"architecture": "small_cnn"}',
    }
    for name, text in contents.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(text)
        if name != "no_weights":
            shutil.copy(folder / "good.pt", folder / name / "pytorch_model.bin")


def _runs(folder: Path) -> None:
    """Folders of runs: ``unfinished``, and others wrong as their name says."""
    trained = compose_config("train", ["data=digits", "model=small_cnn", "trainer.epochs=9"])
    config = OmegaConf.to_yaml(trained, resolve=True)
    state = {"epoch": 4, "data_sha256": "", "model": {}}
    state["config"] = OmegaConf.to_container(trained, resolve=True, enum_to_str=True)
    texts = {
        "unfinished": config,
        "no_checkpoint": config,
        "text_checkpoint": config,
        "no_yaml": "a: [1,",
        "empty_yaml": "",
        "unknown_key": config + "colour: red\n",
        "ignored_keys": config.replace("\n  lr: ", "\n  betas: 1\n  lr: ").replace("flip: ", "mixup: 1\n    flip: "),
        "no_data": "\n".join(line for line in config.splitlines() if not line.startswith("seed")),
        "foreign": config,
        "edited": config.replace("\nseed: 0", "\nseed: 1"),
    }
    for name, text in texts.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.yaml").write_text(text)
        if name not in ("no_checkpoint", "text_checkpoint", "foreign"):
            checkpoint.save(folder / name / "checkpoint.pt", state)
    (folder / "text_checkpoint" / "checkpoint.pt").write_text("weights\n")
    checkpoint.save(folder / "foreign" / "checkpoint.pt", {"weights": torch.zeros(1)})
    (folder / "nothing").mkdir()
    (folder / "file").write_text("")
