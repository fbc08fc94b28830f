"""The folder that is copied to a GPU machine without a network: code, wheels and 25,000 images of CIFAR-10."""

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dkl.assembly import load_data
from dkl.config import TrainConfig, compose_config, typed
from dkl.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 55e6
"""Bytes of the folder."""

CODE = ("dkl", "configs", "experiments", "scripts", "tests", "pyproject.toml")

WHEELS = (
    *("hydra-core", "omegaconf", "pyautoattack", "rich", "markdown-it-py", "mdurl", "pygments", "timm", "safetensors"),
    *("pydantic", "pydantic-core", "annotated-types", "typing-inspection", "scikit-learn"),
    *("pytest", "pluggy", "iniconfig", "hypothesis", "sortedcontainers", "torchdistill"),
    *("pyyaml", "packaging", "typing-extensions"),
)
"""Packages that a machine with torch, torchvision, numpy, scipy and Pillow lacks."""

NEEDED: dict[str, Callable[[str], bool]] = {
    "pyautoattack": lambda name: "/examples/" not in name,
    "scikit_learn": lambda name: name.endswith("/digits.csv.gz") or ".dist-info/" in name,
}
"""Files of large wheels that are kept: all but 40 MB of examples, and the images of digits."""

COUNTS = {"train": 23_000, "test": 2_000}
TILE = (25, 40)
"""Rows and columns of images in a picture."""

RUN = """#!/usr/bin/env bash
# bash run.sh PART [OUT]: runs part 1, 2 or 3 of the acceptance; results go to OUT. SMALL=1 tries it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd); out=${2:-/tmp/gpu_acceptance}; python=${PYTHON:-python3}
mkdir -p "$out"; out=$(cd "$out" && pwd); export DKL_DATA_DIR="$out/data"
if [ ! -d "$out/site" ] && ls "$here"/wheels/*.whl > /dev/null 2>&1; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --target "$out/site" "$here"/wheels/*.whl
fi
[ -d "$out/code" ] || { mkdir "$out/code" && tar xzf "$here/code.tar.gz" -C "$out/code"; }
export PYTHONPATH="$out/code:$out/site${PYTHONPATH:+:$PYTHONPATH}"; cd "$out/code"
[ -f "$DKL_DATA_DIR/cifar10/test.npz" ] || "$python" -m scripts.gpu_acceptance.unpack "$here/images" "$DKL_DATA_DIR"
exec "$python" -m scripts.gpu_acceptance part "$1" "$out"
"""


def write_tiles(images: NDArray[np.uint8], labels: NDArray[np.int64], folder: Path, split: str) -> None:
    """Write ``images[N, H, W, 3]`` as pictures without loss, ``TILE`` images each, and their labels."""
    rows, columns = TILE
    height, width = images.shape[1:3]
    for first in range(0, len(images), rows * columns):
        part = images[first : first + rows * columns]
        grid = np.zeros((rows * columns, *images.shape[1:]), np.uint8)
        grid[: len(part)] = part
        tile = grid.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
        Image.fromarray(tile).save(folder / f"{split}-{first:05}.webp", lossless=True, method=4)
    np.save(folder / f"{split}-labels.npy", labels)


def _write_images(folder: Path) -> None:
    folder.mkdir()
    data = typed(compose_config("train", ["data=cifar10"]), TrainConfig).data
    for split, images in zip(("train", "test"), load_data(data), strict=True):
        chosen = images.balanced(COUNTS[split])
        pixels = chosen.images.permute(0, 2, 3, 1).numpy()  # type: ignore[attr-defined]  # CIFAR is in memory
        write_tiles(pixels, chosen.labels.numpy(), folder, split)


def _write_code(archive: Path) -> None:
    """Pack the tracked files."""
    listed = subprocess.run(["git", "ls-files", *CODE], cwd=ROOT, capture_output=True, text=True, check=True)
    with tarfile.open(archive, "w:gz") as packed:
        for name in listed.stdout.splitlines():
            packed.add(ROOT / name, name)


def _write_wheels(folder: Path, python: str) -> None:
    """Download the wheels of the locked versions; antlr4, which Hydra needs, is only a source distribution."""
    folder.mkdir()
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    pins = {line.partition("==")[0].lower(): line.partition(";")[0].strip() for line in lines if "==" in line}
    pip = [sys.executable, "-m", "pip"]
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--python-version", python, "-d", str(folder)]
    wanted = [pins.get(name, name) for name in WHEELS]
    subprocess.run([*pip, "download", *options, *wanted], check=True)
    antlr = pins["antlr4-python3-runtime"]
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "-w", str(folder), antlr], check=True)


def slim(wheel: Path, needed: Callable[[str], bool]) -> None:
    """Remove the files of ``wheel`` that are not ``needed``."""
    part = wheel.with_suffix(".part")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in filter(lambda entry: needed(entry.filename), old.infolist()):
            content = old.read(entry)
            if entry.filename.endswith(".dist-info/RECORD"):  # pip checks that what it lists is there
                lines = content.decode().splitlines(keepends=True)
                content = "".join(line for line in lines if needed(line.partition(",")[0])).encode()
            new.writestr(entry, content)
    part.replace(wheel)


def size_of(folder: Path) -> int:
    """Bytes of all files in ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def prepare(folder: Path, *, python: str, wheels: bool = True) -> int:
    """Write ``folder``, which must not exist; return its size in bytes. Raises UserError if it is too large."""
    if folder.exists():
        raise UserError(f"{folder} exists: remove it, or name another folder")
    folder.mkdir(parents=True)
    _write_code(folder / "code.tar.gz")
    _write_images(folder / "images")
    if wheels:
        _write_wheels(folder / "wheels", python)
        for name, needed in NEEDED.items():
            for wheel in (folder / "wheels").glob(f"{name}-*.whl"):
                slim(wheel, needed)
    (folder / "run.sh").write_text(RUN, encoding="utf-8")
    if (size := size_of(folder)) > LIMIT:
        raise UserError(f"{folder} has {size / 1e6:.1f} MB, at most {LIMIT / 1e6:.0f} may be carried")
    return size
