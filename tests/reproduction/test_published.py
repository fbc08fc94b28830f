"""A table of the paper is measured on published networks, small stand-ins from a server that behaves like Drive."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dkl.errors import UserError
from dkl.manifests import load, names
from dkl.models import create_model
from dkl.models.sources import named
from dkl.published import PublishedNetwork, known_networks
from dkl.records.storage import save
from dkl.reporting import write_tables
from dkl.reproduction.reproduce import reproduce
from tests.data.common import make_arrays
from tests.data.download_server import serve
from tests.data.sources.test_download import CONFIRM
from tests.factories import make_flags
from tests.reporting.factories import make_run, plain

STAND_INS = {"Wu2020Adversarial": "wrn10_1", "ikl-at-cifar100": "wrn10_1"}


def stand_in(network: PublishedNetwork) -> PublishedNetwork:
    """A small network of the same name. That of two rows fits the file, the others do not."""
    name = STAND_INS.get(network.id, "wrn10_2")
    return replace(network, network=name, arguments={}, mean=None, std=None)


def test_the_papers_values_stand_beside_published_weights_and_failed_rows_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    networks = {scheme: tuple(map(stand_in, known_networks(scheme))) for scheme in ("robustbench", "official")}
    monkeypatch.setattr("dkl.published.known_networks", lambda scheme="robustbench": networks[scheme])
    built = {scheme: tuple(each for each in same if each.network) for scheme, same in networks.items()}
    monkeypatch.setattr("dkl.manifests.manifest.published_networks", lambda scheme="robustbench": built[scheme])
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
    own = make_run("table-02", "awp-basic", budget="mini", robust=0.25, n=1000)
    save(own, make_flags(own), tmp_path / "results" / "records")
    report = write_tables(tmp_path / "results")
    assert not report.problems
    boards = {board.name: plain(board) for board in report.boards}
    alone, beside = ({row["row"]: row for row in boards[f"table-02-{name}"]} for name in ("published-weights", "mini"))
    assert alone["ikl-basic"]["autoattack_paper"] == "31.91"
    low, value, high = (float(alone["ikl-basic"][f"clean_weights_{name}"]) for name in ("low", "mean", "high"))
    assert low < value < high
    assert alone["las-at-basic"]["clean_weights_mean"] == ""
    assert {key: beside["awp-basic"][key] for key in ("clean_weights_mean", "autoattack_mean", "seed_list")} == {
        "clean_weights_mean": alone["awp-basic"]["clean_weights_mean"],
        "autoattack_mean": "25.00",
        "seed_list": "0",
    }
    assert "autoattack_mean" not in alone["awp-basic"]
    text = (tmp_path / "results" / "tables" / "table-02-mini.md").read_text()
    assert "IKL-AT (WRN-34-10, basic): ikl-at-cifar100, bounded AutoAttack on 100 images" in text


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (["table=4"], "no row of table-04 has published weights: leave out weights=published"),
        (["table=2", "row=acat-basic"], "row acat-basic of table-02 has no published weights"),
        (["table=2", "row=ikl-basik"], "did you mean ikl-basic"),
        (["table=2", "budget=mini", "hydra/launcher=joblib"], "leave out budget=mini, hydra/launcher=joblib"),
    ],
)
def test_a_table_without_published_networks_is_refused(arguments: list[str], fix: str) -> None:
    with pytest.raises(UserError, match=fix):
        reproduce([*arguments, "weights=published"])
    with pytest.raises(UserError, match="weights=last is unknown: choose one of published"):
        reproduce(["table=2", "weights=last"])


def test_a_plan_prints_the_commands_and_downloads_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    reproduce(["table=8", "budget=paper", "weights=published", "dry_run=true", "paths.results=r", "attacks=none"])
    assert capsys.readouterr().out.splitlines() == [
        f"dkl evaluate model=official:{name} data=cifar100 paths.results=r attacks=none"
        for name in ("ikl-at-cifar100-a3", "ikl-at-cifar100")
    ]
    for wrong in ("atacks=none", "device=cdua", "n=0"):
        with pytest.raises(UserError, match=wrong.partition("=")[0]):
            reproduce(["table=8", "weights=published", "dry_run=true", wrong])


def test_every_network_of_the_authors_has_a_row() -> None:
    networks = [manifest.network(row) for manifest in map(load, names()) for row in manifest.rows]
    used = {network.name for network in networks if network and network.scheme == "official"}
    assert used == {network.name for network in known_networks("official")}
