"""A sweep over radii gives a record for each and does none twice; one attack alone sees every image."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dkl import records
from dkl.attacks import named_attack
from dkl.cli import main
from dkl.data import digits
from dkl.models import create_model, load_checkpoint
from tests.evaluation.common import only_record, tiny_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("run"))


def test_a_record_for_every_radius(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = [f"run={run}", f"paths.results={tmp_path}", "attacks=[cw-3]", "threads=1"]
    main(["evaluate", *common, "eps=2/255"])
    (first,) = (tmp_path / "records").glob("*.json")
    before = first.stat().st_mtime_ns
    capsys.readouterr()
    main(["evaluate", "-m", *common, "eps=2/255,8/255,0.2"])
    assert capsys.readouterr().err.count("already evaluated") == 1
    assert first.stat().st_mtime_ns == before
    found, problems = records.load_all(tmp_path / "records")
    assert not problems
    by_radius = {record.eps_text: record for record in found}
    assert {text: record.eps for text, record in by_radius.items()} == {"2/255": 2 / 255, "8/255": 8 / 255, "0.2": 0.2}
    assert len({record.clean for record in found}) == len({record.checkpoint_sha256 for record in found}) == 1
    assert by_radius["2/255"].robust > by_radius["0.2"].robust


def test_one_attack_alone_sees_every_image_that_is_right(run: Path, tmp_path: Path) -> None:
    common = [f"run={run}", "eps=0.04", "batch_size=15", "seed=5", "threads=1"]
    for name, attacks in (("both", "[pgd-10,cw-20]"), ("pgd", "[pgd-10]"), ("cw", "[cw-20]")):
        main(["evaluate", *common, f"paths.results={tmp_path / name}", f"attacks={attacks}"])
    (record, flags), (_, pgd), (both, together) = (only_record(tmp_path / name) for name in ("cw", "pgd", "both"))
    assert record.attacks == ["cw-20"]
    assert record.per_attack.keys() == {"cw-20"}
    assert not record.is_autoattack

    model = create_model("small_cnn", 10, in_chans=1)
    load_checkpoint(model, run / "checkpoint.pt")
    test = digits()[1].balanced(40)
    images, labels = test.images.float() / 255, test.labels
    perturb = named_attack(model.eval(), "cw-20", norm="linf", eps=0.04, seed=5)
    with torch.no_grad():
        right = (model(images).argmax(1) == labels).nonzero().squeeze(1)
        standing = torch.zeros(40, dtype=torch.bool)
        for chosen in right.split(15):
            standing[chosen] = model(perturb(images[chosen], labels[chosen])).argmax(1) == labels[chosen]
    assert np.array_equal(flags["cw-20"], standing.numpy())
    assert record.robust == record.per_attack["cw-20"].robust == standing.double().mean()
    assert record.clean == len(right) / 40
    assert both.robust == min(result.robust for result in both.per_attack.values()) == together["cw-20"].mean()
    assert both.robust <= min(record.robust, pgd["pgd-10"].mean())
