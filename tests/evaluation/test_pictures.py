"""Picture data are what the model computes: predictions, margins, and images within the attack's radius."""

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from dkl.assembly import build_model, load_data
from dkl.config import compose_config
from dkl.errors import UserError
from dkl.evaluation import collect_pictures
from dkl.evaluation.pictures import choose_images
from dkl.reporting.figures.pictures import ABOUT, ARRAYS, read
from dkl.storage import checkpoint
from tests.evaluation.common import tiny_run

EPS = 0.1


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network's run of one epoch, with 40 test images."""
    return tiny_run(tmp_path_factory.mktemp("results"), "trainer.epochs=1")


def _asked(run: Path, *overrides: str) -> DictConfig:
    results = run.parents[1]
    plain = [f"run={run}", f"paths.results={results}", f"eps={EPS}", "batch_size=16", "threads=1", "device=cpu"]
    return compose_config("evaluate", [*plain, *overrides])


def _model(run: Path) -> tuple[torch.nn.Module, torch.Tensor, np.ndarray]:
    """The run's network in eval mode, its test images in [0, 1] and their labels."""
    cfg = OmegaConf.load(run / "config.yaml")
    assert isinstance(cfg, DictConfig)
    model = build_model(cfg.model)
    model.load_state_dict(checkpoint.read(run / "checkpoint.pt")["model"])
    test = load_data(cfg.data)[1]
    return model.eval(), test.tensor().float() / 255, test.labels.numpy()


def test_predictions_and_margins_are_those_of_plain_forward_passes(run: Path) -> None:
    path = collect_pictures(_asked(run))
    pictures = read(path)
    assert pictures.arrays.keys() == ARRAYS
    assert pictures.about.keys() >= ABOUT
    assert pictures.about["attacks"] == ["pgd-20"]
    model, images, labels = _model(run)
    with torch.no_grad():
        logits = model(images).double().numpy()
    assert np.array_equal(pictures["labels"], labels)
    assert np.array_equal(pictures["natural"], logits.argmax(1))
    odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    own = odds[np.arange(40), labels]
    odds[np.arange(40), labels] = -1
    assert pictures["natural_margin"] == pytest.approx(own - odds.max(1), abs=1e-5)
    assert pictures["adversarial"].shape == pictures["adversarial_margin"].shape == (40,)
    assert pictures["adversarial_margin"].mean() < pictures["natural_margin"].mean()
    assert (pictures["adversarial_margin"] > 0).tolist() == (pictures["adversarial"] == labels).tolist()


def test_points_and_images_are_test_images(run: Path) -> None:
    pictures = read(collect_pictures(_asked(run)))
    model, images, labels = _model(run)
    count = len(pictures["point_labels"])
    assert sorted(pictures["point_labels"]) == sorted(labels), "digits have fewer than 20 classes of 50 images"
    assert pictures["natural_points"].shape == pictures["adversarial_points"].shape == (count, 2)
    natural, adversarial = pictures["natural_images"], pictures["adversarial_images"]
    assert natural.shape == adversarial.shape == (5, 1, 8, 8)
    assert len(set(pictures["image_labels"])) == 5
    for image, label in zip(natural, pictures["image_labels"], strict=True):
        (places,) = np.nonzero((images.numpy() == image).all((1, 2, 3)))
        assert label in labels[places]
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert 0.5 * EPS < np.abs(adversarial - natural).max() <= EPS + 1e-6
    with torch.no_grad():
        predictions = [model(torch.from_numpy(shown)).argmax(1).tolist() for shown in (natural, adversarial)]
    assert predictions == [pictures["image_natural"].tolist(), pictures["image_adversarial"].tolist()]


def test_the_file_is_kept_and_can_be_made_again_bit_for_bit(run: Path) -> None:
    path = collect_pictures(_asked(run))
    content, written = path.read_bytes(), path.stat().st_mtime_ns
    assert collect_pictures(_asked(run, "attacks=pgd-20")) == path
    assert path.stat().st_mtime_ns == written
    path.unlink()
    assert collect_pictures(_asked(run)) == path
    assert path.read_bytes() == content


@pytest.mark.parametrize("attacks", ["standard", "[pgd-20,cw-20]"])
def test_other_attacks_than_one_by_steps_are_refused(run: Path, attacks: str) -> None:
    with pytest.raises(UserError, match="pictures show one attack pgd-K or cw-K"):
        collect_pictures(_asked(run, f"attacks={attacks}"))


def test_the_seed_alone_chooses_twenty_classes_and_fifty_images_of_each() -> None:
    labels = torch.arange(100).repeat(60)
    chosen = choose_images(labels, 0)
    counts = labels[chosen.points].bincount(minlength=100)
    assert sorted(counts.unique().tolist()) == [0, 50]
    assert int((counts > 0).sum()) == 20
    assert len(labels[chosen.images].unique()) == len(chosen.images) == 5
    assert torch.equal(chosen.points, choose_images(labels, 0).points)
    assert not torch.equal(chosen.points, choose_images(labels, 1).points)
