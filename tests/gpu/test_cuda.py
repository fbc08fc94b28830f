"""A CUDA device gives the results of the CPU, and bf16 and compiled training run: `make test-gpu`."""

from pathlib import Path

import pytest
import torch

from dkl.assembly import train
from dkl.config import compose_config
from dkl.losses import GKL, IKL, KL
from dkl.training.state import RunState

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device and -m gpu"),
]


@pytest.mark.parametrize("loss", [KL(), IKL(), GKL()], ids=lambda loss: type(loss).__name__)
def test_losses_equal_those_on_the_cpu(loss: KL | IKL) -> None:
    m, n = torch.randn(2, 64, 100, dtype=torch.float64)
    weights = torch.rand(64, 100, dtype=torch.float64).softmax(-1)
    gradients = []
    for device in ("cpu", "cuda"):
        a, b = (values.to(device).requires_grad_() for values in (m, n))
        value = loss(a, b) if isinstance(loss, KL) else loss(a, b, weights=weights.to(device))
        gradients.append([one.cpu() for one in torch.autograd.grad(value, (a, b))])
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["trainer.precision=bf16"],
        ["trainer.compile=true"],
        ["trainer.compile=reduce-overhead", "trainer.drop_last=true"],
        ["trainer.deterministic=true", "trainer.matmul=ieee"],
    ],
    ids=str,
)
def test_training_runs_and_learns(options: list[str], tmp_path: Path) -> None:
    fixed = ["data=digits", "model=wrn10_2", "trainer.device=cuda", "trainer.epochs=5", f"paths.results={tmp_path}"]
    folder = train(compose_config("train", fixed + options))
    rows = torch.load(folder / "checkpoint.pt", weights_only=True)["rows"]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["test_accuracy"] > 0.5


def test_a_stopped_run_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["data=digits", "trainer.device=cuda", "trainer.epochs=3", f"paths.results={tmp_path}"]
    save = RunState.save

    def stop_after_two(self: RunState, path: Path) -> None:
        save(self, path)
        if self.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunState, "save", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        train(compose_config("train", options))
    monkeypatch.undo()
    folder = train(compose_config("train", options))
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3
