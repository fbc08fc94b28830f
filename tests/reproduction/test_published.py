"""A table of the paper is measured on published networks, small stand-ins from a server that behaves like Drive."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dkl.errors import UserError
from dkl.models import create_model
from dkl.models.sources import named
from dkl.published import PublishedNetwork, known_networks
from dkl.reproduction.reproduce import reproduce
from tests.data.common import make_arrays
from tests.data.download_server import serve
from tests.data.sources.test_download import CONFIRM

STAND_INS = {"Wu2020Adversarial": "wrn10_1", "Wang2023Better_WRN-28-10": "wrn10_1", "Jia2022LAS-AT_34_10": "wrn10_2"}


def stand_in(network: PublishedNetwork) -> PublishedNetwork:
    """A small network of the same name for two rows; that of a third row does not fit the file."""
    name = STAND_INS.get(network.id)
    return replace(network, network=name, arguments={}, mean=None, std=None)


def test_the_papers_values_stand_beside_published_weights_and_failed_rows_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    networks = tuple(map(stand_in, known_networks()))
    monkeypatch.setattr("dkl.published.known_networks", lambda scheme="robustbench": networks)
    monkeypatch.setattr("dkl.reproduction.published.known_networks", lambda: networks)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    weights = io.BytesIO()
    torch.save({"state_dict": create_model("wrn10_1", 100).state_dict()}, weights)
    folder = tmp_path / "data" / "cifar100"
    folder.mkdir(parents=True)
    for part in ("train", "test"):
        image, _ = make_arrays(200, 1)  # a part of the test set: its whole has 10,000 images
        np.savez(folder / f"{part}.npz", image=image, label=np.arange(200) % 100)
    places = [f"paths.data={tmp_path}/data", f"paths.results={tmp_path}/results"]
    with serve() as site:
        site.content, site.page = weights.getvalue(), CONFIRM
        monkeypatch.setattr(named, "address", lambda file: f"{site.url}?redirect&id={file}")
        with pytest.raises(SystemExit):
            reproduce(["table=2", "weights=published", "n=100", "device=cpu", *places])
    printed = "".join(capsys.readouterr())
    assert "failed: las-at-basic: " in printed
    assert "does not fit this WideResNet" in printed
    lines = (tmp_path / "results" / "tables" / "table-02-published-weights.md").read_text().splitlines()
    row = next(line for line in lines if "Wang2023Better_WRN-28-10 " in line)
    assert "38.83" in row
    assert row.count("–") == 0
    assert not any("las-at" in line for line in lines)
    assert next(line for line in lines if line.startswith("| LAS-AT")).count("–") == 3


def test_a_table_without_published_networks_is_refused() -> None:
    with pytest.raises(UserError, match="no row of table-04 has published weights: leave it out"):
        reproduce(["table=4", "weights=published"])
    with pytest.raises(UserError, match="weights=last is unknown: choose one of published"):
        reproduce(["table=2", "weights=last"])
