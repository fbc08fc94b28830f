"""Images in tar shards equal the same images in folders; damaged shards are named."""

import io
import os
import tarfile
from pathlib import Path

import pytest
import torch

from dkl.assembly import load_data, preflight, train
from dkl.config import compose_config
from dkl.data import Augment, Batching, FileBatches, ImageFiles, ShardedImages, tar_shards
from dkl.errors import UserError
from tests.data.image_files import CLASSES, make_files, write_folder


def pack(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def members(paths: list[Path]) -> dict[str, bytes]:
    """Members as in WebDataset: for each key the image, its class, and other data."""
    found = {}
    for number, path in enumerate(paths):
        key = f"{path.parent.name}_{number:04}"
        found[f"{key}.jpg"] = path.read_bytes()
        found[f"{key}.cls"] = str(CLASSES.index(path.parent.name)).encode()
        found[f"{key}.json"] = b'{"name": "3.jpg"}'
    return found


def make_shards(root: Path, per_class: int = 4) -> list[Path]:
    """Write three training shards and one validation shard. Returns the paths of the training images, in order."""
    paths = write_folder(root / "images", per_class)
    for number in range(3):
        pack(root / f"some-train-{number:04}.tar", members(paths[number::3]))
    pack(root / "some-validation-00.tar", members(write_folder(root / "val", 2, first=50)))
    return [path for number in range(3) for path in paths[number::3]]


def test_batches_equal_those_of_the_images_in_folders(tmp_path: Path) -> None:
    paths = make_shards(tmp_path)
    training, testing = tar_shards(str(tmp_path), 3, 24)
    names = [str(path.relative_to(tmp_path)) for path in paths]
    files = ImageFiles.from_names(tmp_path, names, [CLASSES.index(path.parent.name) for path in paths], size=24)
    assert training.labels.tolist() == files.labels.tolist()
    assert (len(testing), testing.per_class(3).tolist()) == (6, [2, 2, 2])
    assert torch.equal(training.tensor(), files.tensor())
    augment = Augment(crop_padding=0, flip=True)
    both = [
        FileBatches(images, Batching(5, augment=augment, shuffle=True, seed=3, workers=workers)).epoch(1)
        for images, workers in ((training, 2), (files, 0))
    ]
    for ours, theirs in zip(*both, strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.labels, theirs.labels)


def test_subsets_keep_their_images(tmp_path: Path) -> None:
    make_shards(tmp_path)
    training, _ = tar_shards(str(tmp_path), 3, 24)
    rest, held = training.holdout(4)
    assert torch.equal(held.tensor(), training.tensor()[training._balanced_mask(4)])
    assert torch.equal(rest.tensor(), training.tensor()[~training._balanced_mask(4)])
    assert training.balanced(4).sha256 == held.sha256 != training.sha256


def test_the_hash_covers_names_labels_lengths_and_shape_but_not_the_packing(tmp_path: Path) -> None:
    def hashed(where: str, content: dict[str, bytes], size: int = 24, parts: int = 1) -> str:
        keys = sorted({name.partition(".")[0] for name in content})
        for part in range(parts):
            some = keys[part * len(keys) // parts : (part + 1) * len(keys) // parts]
            mine = {name: value for name, value in content.items() if name.partition(".")[0] in some}
            pack(tmp_path / where / f"train-{part}.tar", mine)
        pack(tmp_path / where / "val.tar", content)
        return tar_shards(str(tmp_path / where), 3, size)[0].sha256

    content = members(write_folder(tmp_path / "images", 2))
    first = next(iter(content))
    assert hashed("a", content) == hashed("b", content, parts=2)
    others = [
        hashed("c", content, size=32),
        hashed("d", {**content, first: content[first] + b"\0"}),
        hashed("e", {**content, first.replace("jpg", "cls"): b"1"}),
        hashed("f", {name.replace("n03_0005", "n03_0006"): value for name, value in content.items()}),
    ]
    assert len({hashed("g", content), *others}) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a.jpg": b"x"}, r"must hold an image and a \.cls file for each key; a has only one of them"),
        ({"a.cls": b"0"}, r"a has only one of them"),
        ({"a.jpg": b"x", "a.cls": b"cat"}, r"a\.cls in .*train-0\.tar: expected a class number below .*, not 'cat'"),
        ({"a.jpg": b"x", "a.cls": b"3"}, r"class number below data\.num_classes=3, not '3'"),
    ],
)
def test_images_without_a_class_are_refused(tmp_path: Path, change: dict[str, bytes], message: str) -> None:
    pack(tmp_path / "train-0.tar", {**members(write_folder(tmp_path / "images", 1)), **change})
    with pytest.raises(UserError, match=message):
        tar_shards(str(tmp_path), 3, 24)


def test_missing_and_damaged_shards_and_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no shards .*\*train\*\.tar: .*imagenet-1k-wds.*DKL_DATA_DIR"):
        tar_shards(str(tmp_path), 3, 24)
    make_shards(tmp_path)
    with pytest.raises(UserError, match=r"no image of 1 of 4 classes, such as 3: .*set data\.num_classes"):
        tar_shards(str(tmp_path), 4, 24)
    whole = tmp_path / "some-train-0001.tar"
    content = whole.read_bytes()
    os.truncate(whole, len(content) // 2)
    with pytest.raises(UserError, match=r"some-train-0001\.tar cannot be read as a shard.*: unexpected end of data"):
        tar_shards(str(tmp_path), 3, 24)
    whole.write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"some-train-0001\.tar cannot be read as a shard"):
        tar_shards(str(tmp_path), 3, 24)
    pack(whole, {"empty.txt": b""})
    with pytest.raises(UserError, match=r"some-train-0001\.tar holds no images"):
        tar_shards(str(tmp_path), 3, 24)
    pack(whole, {"a/b.jpg": b"no image", "a/b.cls": b"0"})
    training, _ = tar_shards(str(tmp_path), 3, 24)
    with pytest.raises(UserError, match=r"a/b in .*some-train-0001\.tar cannot be read as an image"):
        training.tensor()


def test_training_on_shards_needs_only_the_choice_of_data(tmp_path: Path) -> None:
    make_shards(tmp_path / "imagenet-1k-wds")
    sizes = ["data.num_classes=3", "data.shape=[3,16,16]", "trainer.epochs=1", "trainer.batch_size=4"]
    chosen = ["data=imagenet_shards", "task=classification", "loss=none", "attack=none", "trainer.threads=1"]
    where = [f"paths.data={tmp_path}", f"paths.results={tmp_path}/results"]
    cfg = compose_config("train", [*chosen, *sizes, *where, "evaluation.batch_size=4"])
    preflight(cfg)
    assert all(isinstance(split, ShardedImages) for split in load_data(cfg.data))
    assert (train(cfg) / "checkpoint.pt").is_file()


def test_files_and_shards_have_different_hashes(tmp_path: Path) -> None:
    make_shards(tmp_path)
    assert tar_shards(str(tmp_path), 3, 32)[0].sha256 != make_files(tmp_path / "files").sha256
