"""Which evaluation of a run a column of the paper's tables uses, and how columns are combined."""

from typing import Any

import pytest

from dkl.manifests import Column
from dkl.records import Bound, Record
from dkl.records.record import Segmented
from dkl.reporting.statistics import measure, measure_weights
from dkl.threat import SUITES
from tests.reporting.factories import make_record

COLUMNS = {
    "clean": Column(title="Clean", metric="clean"),
    "aa": Column(title="AutoAttack", metric="robust"),
    "aa4": Column(title="AA 4/255", metric="robust", eps="4/255"),
    "pgd": Column(title="PGD-20", metric="robust", attacks="pgd-20"),
    "mean": Column(title="Mean", metric="mean", of=("aa", "aa4")),
    "worst": Column(title="Worst", metric="min", of=("aa", "pgd")),
    "top1": Column(title="Top-1", metric="top1"),
    "top5": Column(title="Top-5", metric="top5"),
    "best": Column(title="Best epoch", metric="best"),
    "few": Column(title="Few", metric="few"),
    "time": Column(title="Step", metric="step_seconds", unit="s"),
    "own": Column(title="Confidence", metric="test_confidence", unit="", higher_is_better=False),
    "gain": Column(title="Gain", metric="paper"),
}
DATA = {"data": {"eps": "8/255"}}
AVERAGED = {**DATA, "averaging": {"decay": 0.9}}
SELECTED = {**AVERAGED, "selection": {"every": 5}}


def evaluated(**overrides: Any) -> Record:
    """Return an evaluation of a run on data whose default radius is 8/255."""
    return make_record(**{"training": DATA, **overrides})


def values(records: list[Record], key: str, columns: dict[str, Column] = COLUMNS) -> dict[int, float]:
    """Return the column by seed."""
    return {seed: found.value for seed, found in measure(records, key, columns).items()}


def at(eps: int, **overrides: Any) -> Record:
    return evaluated(**{"id": f"at{eps}", "eps": eps / 255, "eps_text": f"{eps}/255", **overrides})


def test_a_column_uses_its_own_radius_attacks_and_norm() -> None:
    pgd = evaluated(id="pgd", attacks=["pgd-20"], robust=0.4)
    other = evaluated(id="l2", norm="L2", robust=0.6)
    records = [at(8, robust=0.3), at(4, robust=0.5), pgd, other]
    assert values(records, "aa") == {0: 0.3}
    assert values(records, "aa4") == {0: 0.5}
    assert values(records, "pgd") == {0: 0.4}
    assert values([pgd, other], "aa") == {}


def test_a_column_of_a_tasks_own_test_metric_has_its_direction() -> None:
    assert values([evaluated(tests={"confidence": 1.5}), evaluated(id="none", seed=1)], "own") == {0: 1.5}
    assert [COLUMNS[key].more_is_better for key in ("own", "clean", "time")] == [False, True, False]


def test_mean_and_worst_need_every_part_of_a_seed() -> None:
    records = [at(8, robust=0.3), at(4, robust=0.5), at(8, id="one more", seed=1, robust=0.2)]
    assert values(records, "mean") == {0: pytest.approx(0.4)}
    assert [record.id for record in measure(records, "mean", COLUMNS)[0].records] == ["at8", "at4"]
    assert values([*records, evaluated(id="pgd", attacks=["pgd-20"], robust=0.25)], "worst") == {0: 0.25}


@pytest.mark.parametrize(
    ("training", "kept"),
    [(DATA, "last"), (AVERAGED, "average"), (SELECTED, "best"), ({**DATA, "averaging": None}, "last")],
)
def test_the_weights_are_those_the_recipe_keeps(training: dict[str, Any], kept: str) -> None:
    accuracies = {"last": 0.1, "average": 0.2, "best": 0.3}
    records = [
        evaluated(id=which, weights=f"{which} epoch 9", robust=robust, training=training)
        for which, robust in accuracies.items()
    ]
    assert values(records, "aa") == {0: accuracies[kept]}
    assert values([record for record in records if record.id != kept], "aa") == {}


def test_the_most_images_count_then_the_newest() -> None:
    few = evaluated(id="few", n=500, robust=0.5, created="2030-01-01T00:00:00Z")
    old, new = (
        evaluated(id=year, robust=robust, created=f"{year}-01-01T00:00:00Z")
        for year, robust in (("2025", 0.3), ("2026", 0.2))
    )
    assert values([few, old, new], "aa") == values([new, old, few], "aa") == {0: 0.2}


def test_seeds_of_one_column_are_all_on_the_same_images() -> None:
    """Of two equally large sets of images the one with more seeds counts. The other seeds are left out."""
    records = [evaluated(id=str(seed), seed=seed, data_sha256=("e" if seed == 2 else "d") * 64) for seed in (2, 1, 0)]
    assert list(values(records, "aa")) == [0, 1]


def test_seeds_of_one_column_are_all_predicted_in_the_same_way() -> None:
    """The way of more seeds counts, also if another evaluation is newer."""
    columns = {"miou": Column(title="Mean IoU", metric="miou")}

    def segmented(seed: int, miou: float, way: str, year: int) -> Record:
        result = Segmented(miou=miou, iou={"sky": miou}, prediction=way)
        return evaluated(id=f"{way}{seed}", seed=seed, attacks=[], segmented=result, created=f"{year}-01-01T00:00:00Z")

    records = [
        segmented(0, 0.3, "single", 2025),
        segmented(1, 0.4, "single", 2025),
        segmented(0, 0.5, "mirrored", 2026),
    ]
    assert values(records, "miou", columns) == {0: 0.3, 1: 0.4}


def test_top1_needs_a_record_without_attacks_and_clean_one_with_attacks() -> None:
    shots = {"many": 0.8, "few": 0.2}
    alone = evaluated(
        id="alone", attacks=[], clean=0.7, top5=0.9, best=0.72, best_epoch=3, shots=shots, step_seconds=0.5
    )
    attacked = evaluated(id="attacked", clean=0.6)
    records = [alone, attacked]
    assert values(records, "top1") == {0: 0.7}
    assert values(records, "clean") == {0: 0.6}
    assert [values(records, key)[0] for key in ("top5", "best", "few", "time")] == [0.9, 0.72, 0.2, 0.5]
    assert values(records, "gain") == {}


def test_flags_name_the_attacks_an_image_must_withstand() -> None:
    cells = measure([at(8), at(4)], "aa", COLUMNS)
    assert cells[0].flags == (("clean", "apgd-ce", "apgd-t", "fab-t", "square"),)
    assert measure([at(8)], "clean", COLUMNS)[0].flags == (("clean",),)
    assert len(measure([at(8), at(4)], "mean", COLUMNS)[0].flags) == 2
    assert measure([at(8), evaluated(id="pgd", attacks=["pgd-20"])], "worst", COLUMNS)[0].flags == ()


def test_a_part_of_the_test_set_counts_only_in_a_column_of_so_many_images() -> None:
    columns = {"all": Column(title="AA", metric="robust"), "part": Column(title="AA, 500", metric="robust", n=500)}
    part, other = (evaluated(id=f"{n}", n=n, partial=True, robust=n / 1000) for n in (500, 400))
    whole = evaluated(id="whole", n=10000, robust=0.3)
    assert values([part, other, whole], "all", columns) == {0: 0.3}
    assert values([part, other, whole], "part", columns) == {0: 0.5}
    assert not measure([other, whole], "part", columns)


def test_a_search_in_bf16_counts_only_in_a_column_that_says_so() -> None:
    columns = {kind: Column(title=kind, metric="robust", precision=kind) for kind in ("float32", "bf16")}
    records = [
        evaluated(id="whole", robust=0.3),
        evaluated(id="weaker", robust=0.4, search={"precision": "bf16"}, created="2099-01-01T00:00:00+00:00"),
        evaluated(id="same", robust=0.3, search={"fold_batch_norm": True}, created="2098-01-01T00:00:00+00:00"),
    ]
    found = {key: [one.records[0].id for one in measure(records, key, columns).values()] for key in columns}
    assert found == {"float32": ["same"], "bf16": ["weaker"]}


def test_published_weights_count_in_the_norm_of_the_column() -> None:
    records = [
        evaluated(id="published", seed=None, robust=0.3),
        evaluated(id="euclidean", seed=None, robust=0.4, norm="L2", created="2099-01-01T00:00:00+00:00"),
    ]
    assert [one.records[0].id for one in measure_weights(records, "aa", COLUMNS).values()] == ["published"]


def test_the_standard_suite_counts_in_a_column_of_bounded_autoattack_but_not_the_other_way_round() -> None:
    """An evaluation with attacks=bounded that had to attack every image is recorded as the standard suite."""
    columns = {kind: Column(title=kind, metric="robust", attacks=kind) for kind in ("bounded", "standard")}
    bound = Bound(low=0.25, high=0.26, tolerance=2.0)
    records = [
        evaluated(id="exact", seed=0, robust=0.2),
        evaluated(id="bounded", seed=1, robust=0.26, attacks=list(SUITES["bounded"]), bound=bound),
    ]
    assert values(records, "bounded", columns) == {0: 0.2, 1: 0.26}
    assert values(records, "standard", columns) == {0: 0.2}


def test_the_accuracy_may_lie_below_the_value_of_bounded_autoattack_by_its_distance_to_the_lower_end() -> None:
    """The value may lie above the upper end as well: hits in a sample bound how many images outside of it fall."""
    columns = {
        "clean": Column(title="Clean", metric="clean"),
        "aa": Column(title="AA", metric="robust", attacks="bounded"),
        "pgd": Column(title="PGD-20", metric="robust", attacks="pgd-20"),
        "mean": Column(title="Mean", metric="mean", of=("aa", "pgd")),
        "worst": Column(title="Worst", metric="min", of=("aa", "pgd")),
    }
    bound = Bound(low=0.25, high=0.255, tolerance=2.0)
    records = [
        evaluated(id="bounded", attacks=list(SUITES["bounded"]), robust=0.26, bound=bound),
        evaluated(id="pgd", attacks=["pgd-20"], robust=0.255),
    ]
    found = {key: measure(records, key, columns)[0].slack for key in columns}
    assert found == pytest.approx({"clean": 0, "aa": 0.01, "pgd": 0, "mean": 0.005, "worst": 0.005})


def test_a_column_may_name_its_weights() -> None:
    columns = {kind: Column(title=kind, metric="robust", weights=kind) for kind in ("best", "last")}
    columns["kept"] = Column(title="kept", metric="robust")
    records = [
        evaluated(id="best", training=SELECTED, weights="best epoch 3", robust=0.4),
        evaluated(id="last", training=SELECTED, weights="last epoch 9", robust=0.2),
    ]
    assert [values(records, key, columns)[0] for key in ("best", "last", "kept")] == [0.4, 0.2, 0.4]
