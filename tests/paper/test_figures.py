"""Every published number is in the manifest row it belongs to, and manifests have no other numbers.

The numbers of ``figures.yaml`` and of the manifests must be equal, and the stated settings must be those of the run.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dkl.manifests import ManifestRow, identities, names
from tests.paper.placement import (
    EXTRA,
    FIGURES,
    LOGS,
    METHODS,
    ROWS,
    SETTINGS,
    TABLES,
    WEIGHTS,
    Entry,
    composed,
    entries,
    figures,
    in_manifests,
    loaded,
    row_of,
)


def test_manifests_have_every_number_in_its_row_and_no_other() -> None:
    expected = {figure for entry in entries() for figure in figures(entry)}
    found = set(in_manifests())
    assert expected - found == set()
    assert found - expected == set()


def test_the_page_of_distillation_has_the_values_of_the_manifests() -> None:
    """One row per pair, one column per loss on logits; bold is better than IKL."""
    rows = [row for number in (13, 14, 4) for row in loaded(f"table-{number:02d}").rows]
    losses = [content["method"] for content in FIGURES["logit_losses"]]
    values = {
        (row.label, *row.show.values()): (row.paper or next(iter(row.published.values())))["best"]
        for row in rows
        if row.label == "IKL-KD" or (row.label in losses and row.published)
    }
    page = (Path(__file__).parents[2] / "docs" / "distillation.md").read_text()
    for _, *pair in [key for key in values if key[0] == "IKL-KD"]:
        ikl, *others = (values.get((loss, *pair)) for loss in ("IKL-KD", *losses))
        shown = ["–" if value is None else f"**{value:.2f}**" if value > ikl else f"{value:.2f}" for value in others]
        assert f"| {' → '.join(pair)} | {ikl:.2f} | {' | '.join(shown)} |\n" in page
    assert f"| IKL | {' | '.join(losses)} |\n" in page


def test_every_table_has_its_manifest() -> None:
    tables = [found.number for found in map(loaded, names()) if found.kind == "table"]
    assert sorted(tables) == sorted(TABLES) == [number for number in range(1, 19) if number != 6]


def test_rows_have_the_stated_origin_method_and_settings() -> None:
    for manifest, name, _, content in entries():
        row, where = row_of(manifest, name), f"{manifest} {name}"
        if "origin" in content:
            assert row.origin == content["origin"], where
        if "method" in content and "dataset" not in content:
            named = METHODS.get(content["method"], content["method"])
            assert row.label in (named, f"{named}-AT"), where
    for number in (2, 3, 7, 8, 9, 16):
        for name, content in zip(ROWS[number].split(), FIGURES[f"T{number}"]["rows"], strict=True):
            shown = [str(content[key]) for key in SETTINGS if key in content]
            assert list(row_of(f"table-{number:02d}", name).show.values()) == shown, name
    for manifest, name, _, content in entries():
        if "teacher" in content or "student" in content:
            shown = [content.get(key) or "–" for key in ("teacher", "student")]
            assert list(row_of(manifest, name).show.values()) == shown, name


def weights(content: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the loss weights of an entry: as keys, or from the name of a checkpoint."""
    hyper = content.get("hyper", {})
    for key, value in (content | hyper | hyper.get("released_checkpoint", {})).items():
        if key in WEIGHTS:
            yield key, value
    if found := re.search(r"_a(\d+)_b(\d+)_t(\d+)", str(content.get("checkpoint")).lower()):
        yield from zip(("code_alpha", "code_beta", "T"), map(int, found.groups()), strict=True)


def stated() -> dict[tuple[str, str], dict[str, float]]:
    """Return, per row that is run, the weights that the paper, official scripts or checkpoints state."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    logs = [Entry(EXTRA, row, "", {"checkpoint": name}) for name, row in LOGS.items()]
    for manifest, name, _, content in (*entries(), *logs):
        if not row_of(manifest, name).quoted and (values := dict(weights(content))):
            found[manifest, name] = values
    return found


@pytest.mark.parametrize(("place", "stated_weights"), stated().items(), ids=lambda value: "-".join(value))
def test_a_row_trains_with_the_stated_weights(place: tuple[str, str], stated_weights: dict[str, float]) -> None:
    cfg = composed(*place)
    ours = {
        "alpha_over_4": cfg.loss.wmse_weight / 4,
        **dict.fromkeys(("alpha", "code_beta"), cfg.loss.wmse_weight),
        **dict.fromkeys(("beta", "code_alpha"), cfg.loss.ce_weight),
        **dict.fromkeys(("tau", "T"), cfg.task.prior_temperature),
        "second_view_weight": cfg.task.aug_weight,
    }
    assert {key: ours[key] for key in stated_weights} == stated_weights
    assert cfg.budget.name == "paper"


def test_rows_that_are_one_run_share_its_identity() -> None:
    rows = {
        "table-02": ("ikl-basic", "ikl-50m"),
        "table-03": ("ikl-basic", "ikl-20m"),
        "table-07": ("alpha-5",),
        "table-08": ("beta-3", "beta-5"),
        "table-09": ("tau-2", "tau-4"),
        "table-11": ("ikl", "ikl-50m"),
        EXTRA: ("cifar100-ikl-a3", "cifar100-ikl-50m", "cifar10-ikl-a3", "cifar10-ikl-20m"),
    }
    of = {
        name: identities(replace(loaded(name), rows=tuple(row_of(name, row) for row in chosen)), "paper")
        for name, chosen in rows.items()
    }
    headline = of["table-02"]["ikl-basic"]
    assert headline == of["table-07"]["alpha-5"] == of["table-08"]["beta-5"] == of["table-09"]["tau-4"]
    assert of[EXTRA]["cifar100-ikl-a3"] == of["table-08"]["beta-3"] != headline
    assert of[EXTRA]["cifar100-ikl-50m"] == of["table-02"]["ikl-50m"] == of["table-11"]["ikl-50m"]
    assert of[EXTRA]["cifar10-ikl-a3"] == of["table-03"]["ikl-basic"]
    assert of[EXTRA]["cifar10-ikl-20m"] == of["table-03"]["ikl-20m"]
    assert of["table-11"]["ikl"] == of["table-09"]["tau-2"]


def printed(row: ManifestRow, column: str) -> float:
    """Return a row's number in ``column``, from the paper or a README; the best epoch's if the last's is missing."""
    figures = row.published.get("README", {}) | row.paper
    return figures.get(column, figures.get("best"))


def test_claims_agree_with_the_numbers() -> None:
    published = [name for name in names() if any(row.paper or row.published for row in loaded(name).rows)]
    claims = {name: loaded(name).claims for name in published}
    for manifest, found in claims.items():
        for better, than, column in ((claim.better, claim.than, claim.column) for claim in found):
            ahead, behind = row_of(manifest, better), row_of(manifest, than)
            assert (ahead.quoted, behind.quoted) == (None, None)
            assert printed(ahead, column) > printed(behind, column), f"{manifest}: {better} {than} {column}"
    assert all(claims[f"table-{number:02d}"] for number in (1, 2, 3, 4, 5, 10, 11, 13, 14, 15, 16, 18))
