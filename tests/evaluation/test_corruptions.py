"""``dkl evaluate corruptions=FOLDER``: accuracy on corrupted images as CIFAR-10-C holds them, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dkl import records
from dkl.cli import main
from dkl.data import CORRUPTIONS, digits
from dkl.errors import UserError
from dkl.models import create_model, load_checkpoint
from tests.evaluation.common import evaluate_run, tiny_run

IMAGES = 30


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("run"), "trainer.epochs=2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Digits in the files of CIFAR-10-C, with more noise in each severity and with each corruption."""
    place, test = tmp_path / "corrupted", digits()[1].balanced(IMAGES)
    place.mkdir()
    np.save(place / "labels.npy", np.tile(test.labels.numpy(), 5))
    random = np.random.default_rng(0)
    for number, name in enumerate(CORRUPTIONS):
        pixels = test.images.permute(0, 2, 3, 1).numpy().astype(float)
        severities = [pixels + random.normal(0, 10 * number * s, pixels.shape) for s in range(1, 6)]
        np.save(place / f"{name}.npy", np.concatenate(severities).clip(0, 255).astype(np.uint8))
    return place


def test_accuracy_per_corruption_and_severity(run: Path, folder: Path, tmp_path: Path) -> None:
    alone, _ = evaluate_run(run, tmp_path / "clean", "attacks=none")
    results = tmp_path / "results"
    record, flags = evaluate_run(run, results, f"corruptions={folder}", "batch_size=40")
    assert (record.attacks, record.clean, record.n) == ([], alone.clean, 40)
    assert record.corruptions is not None
    assert list(record.corruptions) == list(CORRUPTIONS)
    model = create_model("small_cnn", 10, in_chans=1).eval()
    load_checkpoint(model, run / "checkpoint.pt")
    labels = torch.from_numpy(np.load(folder / "labels.npy"))
    every = []
    for name in CORRUPTIONS:
        pixels = torch.from_numpy(np.load(folder / f"{name}.npy")).permute(0, 3, 1, 2)
        with torch.no_grad():
            correct = (model(pixels.float() / 255).argmax(1) == labels).view(5, IMAGES)
        assert np.array_equal(flags[name], correct.numpy())
        assert record.corruptions[name] == pytest.approx(correct.double().mean(1).tolist())
        every.append(correct)
    assert record.corrupted == pytest.approx(torch.cat(every).double().mean().item())
    assert 0.1 < record.corrupted < record.clean

    (path,) = (results / "records").glob("*.json")
    content = json.loads(path.read_text()) | {"checksums": {}}
    content["corruptions"]["fog"][2] += 0.1
    copy = tmp_path / path.name
    copy.write_text(json.dumps(content))
    shutil.copy(path.with_suffix(".npz"), tmp_path)
    with pytest.raises(UserError, match=r"corruptions\.fog is not the mean of its flags"):
        records.load(copy)

    # An evaluation of the same weights without corruptions neither repeats the row nor hides the column.
    main(["evaluate", f"run={run}", f"paths.results={results}", "threads=1", "attacks=none"])
    main(["tables", f"results={results}"])
    board = (results / "tables" / "digits-accuracy-own.md").read_text()
    assert "Corrupted (%)" in board
    assert f"{100 * record.corrupted:.2f}" in board
    assert "evaluations" not in board

    part, flags = evaluate_run(run, tmp_path / "part", f"corruptions={folder}", "n=10")
    assert part.partial
    assert all(flags[name].shape == (5, 10) for name in CORRUPTIONS)


def test_an_unusable_folder_is_refused(run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*overrides: str, place: Path = folder) -> str:
        with pytest.raises(SystemExit):
            main(["evaluate", f"run={run}", f"corruptions={place}", f"paths.results={folder}", *overrides])
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    assert "there is no folder" in refused(place=folder / "none")
    assert "leave out attacks" in refused("attacks=fast")
    (folder / "fog.npy").rename(folder / "mist.npy")
    assert "lacks fog.npy" in refused()
    (folder / "fog.npy").write_bytes(b"no array")
    assert "fog.npy cannot be read as an .npy array" in refused()
    np.save(folder / "fog.npy", np.zeros((5 * IMAGES, 9, 8, 1), np.uint8))
    assert "fog.npy must be uint8 (150, 8, 8, 1)" in refused()
    (folder / "mist.npy").replace(folder / "fog.npy")
    np.save(folder / "labels.npy", np.full(5 * IMAGES, 12))
    assert "has 13 classes, digits has 10" in refused()
    np.save(folder / "labels.npy", np.zeros(5 * IMAGES + 1, np.int64))
    assert "labels.npy must hold the class of each image" in refused()
    assert not (folder / "records").exists()
