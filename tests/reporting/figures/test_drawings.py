"""Every kind of figure shows the numbers it is given, in readable text."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from omegaconf import OmegaConf

from dkl.config import compose_config, hashed, shipped
from dkl.manifests import load
from dkl.records import Curves, Record
from dkl.reporting.boards.paper import paper_boards
from dkl.reporting.figures.claims import rankings
from dkl.reporting.figures.curves import dynamics, panels, training_curves
from dkl.reporting.figures.pictures import class_accuracies, embedding, image_strip, margin_differences
from dkl.reporting.figures.robustness import STEPS, Line, published_lines, radii, robustness_curves, steps
from dkl.reporting.figures.style import STYLE, WIDE, WIDTH, Drawing, line_looks, method_color
from dkl.reporting.figures.tradeoff import Point, measured_points, published_points, tradeoff
from tests.reporting.factories import make_record
from tests.reporting.figures.common import make_pictures, styled

OKABE_ITO = {
    *((0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115)),
    *((240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)),
}
FIRST, SECOND = make_pictures(0, classes=30, images=150), make_pictures(1, classes=30, images=150)
EPOCHS = [{"epoch": e, "loss": 3 / e, "natural_accuracy": e / 9, "test_accuracy": e / 10} for e in range(1, 9)]
SEMI_SUPERVISED = [
    epoch | {"labeled_loss": 1.8, "mask_rate": 0.3, "pseudo_label_accuracy": 0.5, "average_test_accuracy": 0.4}
    for epoch in EPOCHS
]


def _figure_2(*own: Point) -> Figure:
    table = load("table-02")
    points = published_points(table, "clean", "autoattack", "Augmentation")
    x, y = (table.columns[key] for key in ("clean", "autoattack"))
    return styled(tradeoff, [*points, *own], title="Figure 2", x=x, y=y)


def _dynamics(**methods: list[Curves]) -> Figure:
    return styled(dynamics, list(methods), panels(methods), title="Dynamics")


def _ranking() -> Figure:
    """Two seeds of one method, and one of another, on an accuracy board."""
    found = ("IKL-KD", 0, 0.29), ("IKL-KD", 1, 0.31), ("KD", 0, 0.1)
    records = [make_record(method=method, seed=seed, clean=clean, attacks=[]) for method, seed, clean in found]
    ((_, draw),) = rankings(records, include_smoke=False)
    return styled(draw)


KINDS = {
    "tradeoff": _figure_2,
    "radii": lambda: styled(robustness_curves, published_lines(load("table-10")), title="Table 10"),
    "steps": lambda: styled(
        robustness_curves, [Line("IKL-AT, PGD", [5, 10, 100], [31, 30, 29.5])], title="Steps", unit=STEPS
    ),
    "curves": lambda: styled(training_curves, [EPOCHS, EPOCHS[:5]], title="Curves"),
    "semi-supervised curves": lambda: styled(training_curves, [SEMI_SUPERVISED], title="Curves"),
    "dynamics": lambda: _dynamics(TRADES=[SEMI_SUPERVISED, EPOCHS], IKL=[EPOCHS]),
    "ranking": _ranking,
    "features": lambda: styled(embedding, FIRST, title="Features"),
    "margins": lambda: styled(margin_differences, FIRST, SECOND, title="Margins"),
    "classes": lambda: styled(class_accuracies, FIRST, title="Classes"),
    "few classes": lambda: styled(class_accuracies, make_pictures(2), title="Classes"),
    "images": lambda: styled(image_strip, FIRST, title="Images"),
    "gray images": lambda: styled(image_strip, make_pictures(3, channels=1), title="Images"),
}


@cache
def figure_of(kind: str) -> Figure:
    return KINDS[kind]()


@pytest.mark.parametrize("kind", KINDS)
def test_text_is_at_least_seven_points_and_nothing_is_cut_off(kind: str) -> None:
    figure = figure_of(kind)
    width = WIDE if kind == "dynamics" else WIDTH
    assert figure.get_figwidth() == width
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 7
    with rc_context(STYLE):
        drawn = figure.get_tightbbox()
    assert min(drawn.x0, drawn.y0) >= 0
    assert drawn.x1 <= width
    assert drawn.y1 <= figure.get_figheight()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "images" not in kind])
def test_colors_are_those_of_okabe_and_ito(kind: str) -> None:
    drawn = set()
    for axes in figure_of(kind).axes:
        drawn |= {to_rgb(line.get_color()) for line in axes.lines}
        drawn |= {to_rgb(patch.get_facecolor()) for patch in axes.patches}
        for points in axes.collections:
            drawn |= {to_rgb(color) for color in (*points.get_facecolor(), *points.get_edgecolor()) if color[3]}
    colored = {tuple(round(255 * part) for part in color) for color in drawn if len(set(color)) > 1}
    assert colored
    assert colored <= OKABE_ITO


def test_figure_2_shows_the_values_of_its_table_and_no_label_covers_another() -> None:
    rows = OmegaConf.load(shipped("experiments") / "table-02.yaml").rows
    shown = [(line.get_label(), *line.get_xydata()[0]) for line in _figure_2().axes[0].lines]
    assert shown == [(row.label, row.paper.clean, row.paper.autoattack) for row in rows]
    own = [Point("IKL-AT", 65.5, 31.6, "basic", "here", (0.2, 0.15)), Point("IKL-AT", 66.2, 32.4, "AutoAug", "here")]
    boxes = [text.get_window_extent() for text in _figure_2(*own).findobj(Annotation)]
    assert len(boxes) == len(rows) + 2
    assert not any(first.overlaps(second) for first, second in combinations(boxes, 2))


def test_labels_and_markers_of_figure_2_tell_methods_apart_without_color() -> None:
    own = Point("IKL-AT", 65.5, 31.6, "basic", "here")
    (axes,) = _figure_2(own).axes
    groups = {row.show["Augmentation"] for row in load("table-02").rows}
    labels = [text.get_text() for text in axes.findobj(Annotation)]
    assert {f"IKL-AT ({group})" for group in groups} <= set(labels)
    assert "LBGAT" in labels, "a method of one group needs no addition"
    *published, ours = [line for line in axes.lines if line.get_marker() != "None"]
    assert len({line.get_marker() for line in published}) == len(groups)
    assert ours.get_mec() == "black"
    hollow = {line.get_label(): line.get_mfc() == "white" for line in published}
    assert hollow == {row.label: row.origin != "own" for row in load("table-02").rows}


def test_class_numbers_of_figure_3_cover_no_point_and_no_other_number() -> None:
    pictures, rng = make_pictures(1, classes=20, images=600), np.random.default_rng(2)
    centers = 40 * np.stack(np.divmod(np.arange(20), 5), 1)[pictures["labels"]]
    for key in ("natural_points", "adversarial_points"):
        pictures.arrays[key] = centers + rng.normal(0, 6, centers.shape)
    (axes,) = styled(embedding, pictures, title="").axes
    boxes = [text.get_window_extent() for text in axes.findobj(Annotation)]
    points = np.concatenate([pictures["natural_points"], pictures["adversarial_points"]])
    pixels = axes.transData.transform(points)
    assert len(boxes) == 20
    assert not any(box.contains(x, y) for box in boxes for x, y in pixels)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


@pytest.mark.parametrize("kind", ["tradeoff", "radii", "curves", "ranking"])
def test_axes_have_at_least_five_labeled_ticks(kind: str) -> None:
    for axes in figure_of(kind).axes:
        low, high = sorted(axes.get_ylim())
        scales = [axes.get_xlim(), (low, high)]
        ticks = [
            [t for t in found if a <= t <= b]
            for found, (a, b) in zip((axes.get_xticks(), axes.get_yticks()), scales, strict=True)
        ]
        assert len(ticks[0]) >= 5
        assert len(ticks[1]) >= 5 or kind == "ranking", "a ranking has one tick per row"


def _trained(seed: int, **fields: object) -> Record:
    content = hashed(compose_config("train", ["data=cifar100", "budget=paper", "recipe=official", "loss=ikl"]))
    return make_record(
        **{"seed": seed, "budget": "paper", "weights": "average at epoch 200", "training": content, **fields}
    )


def test_our_points_of_figure_2_are_means_over_seeds() -> None:
    table = replace(load("table-02"), claims=())
    table = replace(table, rows=tuple(row for row in table.rows if row.name == "ikl-basic"))
    own = [_trained(seed, clean=clean, robust=robust) for seed, clean, robust in ((0, 0.6, 0.3), (1, 0.64, 0.31))]
    (board,) = paper_boards([table], own, lambda record: {})
    (point,) = measured_points(board, "clean", "autoattack", lambda found: found.row.show["Augmentation"])
    assert (point.label, point.group, point.origin) == ("IKL-AT", "basic", "here")
    assert (point.x, point.y) == pytest.approx((62, 30.5))
    assert point.spread == pytest.approx((np.std([60, 64], ddof=1), np.std([30, 31], ddof=1)))


def test_lines_of_table_10_are_its_values() -> None:
    table = OmegaConf.load(shipped("experiments") / "table-10.yaml")
    radii = (2, 4, 6, 8, 10, 12)
    lines = published_lines(load("table-10"))
    for line, row in zip(lines, table.rows, strict=True):
        assert line.label == row.label
        assert np.multiply(line.x, 255) == pytest.approx(radii)
        assert line.accuracy == [row.paper[f"aa_{radius}_255"] for radius in radii]


def _lines(drawings: Iterable[Drawing]) -> list[Line]:
    """Return the lines of all figures of ``radii`` or ``steps``."""
    return [line for _, draw in drawings for line in draw.args[0]]


def _at(eps: int, robust: float, seed: int = 0, **fields: object) -> Record:
    name = f"{fields.get('method', 'IKL-AT')}-{eps}-{seed}-{robust}-{fields.get('weights')}"
    return make_record(
        **{"id": name, "eps": eps / 255, "eps_text": f"{eps}/255", "robust": robust, "seed": seed, **fields}
    )


def test_our_lines_are_means_over_seeds_of_the_newest_evaluations_at_three_radii_or_more() -> None:
    old = _at(2, 0.1, created="2024-01-01T00:00:00+00:00")
    records = [old, *(_at(eps, value, seed) for eps in (2, 4, 8) for seed, value in ((0, 0.5 / eps), (1, 0.7 / eps)))]
    records += [_at(eps, 0.3, method="at two radii") for eps in (2, 4)]
    (line,) = _lines(radii([], [], records))
    assert not line.published
    clean = 100 * records[0].clean
    assert np.multiply(line.x, 255) == pytest.approx([0, 2, 4, 8])
    assert line.accuracy == pytest.approx([clean, 30, 15, 7.5])
    assert line.spread == pytest.approx([0, *(np.std([50 / eps, 70 / eps], ddof=1) for eps in (2, 4, 8))])


def test_lines_of_steps_are_those_of_pgd_or_cw_alone_of_the_seeds_attacked_everywhere() -> None:
    attacked = [("pgd-5", 0), ("pgd-5", 1), ("pgd-10", 0), ("pgd-10", 1), ("pgd-100", 0)]
    attacked += [("pgd-20 cw-20", 0), ("square", 0), ("cw-5", 0), ("cw-10", 0)]
    records = [
        make_record(id=f"{names}-{seed}", seed=seed, attacks=names.split(), robust=1 / len(names) + 0.1 * seed)
        for names, seed in attacked
    ]
    (line,) = _lines(steps(records))
    assert line.label == "IKL-AT, PGD"
    assert (list(line.x), line.accuracy) == ([5, 10, 100], pytest.approx([20, 100 / 6, 100 / 7]))


def test_rows_of_one_name_get_different_labels() -> None:
    weights = ("last epoch 30", "average at epoch 30")
    records = [_at(eps, 0.4, weights=kind) for kind in weights for eps in (2, 4, 8)]
    labels = [line.label for line in _lines(radii([], [], records))]
    assert len(set(labels)) == 2
    assert all(label.startswith("IKL-AT (") for label in labels)


def test_curves_are_percent_by_epoch_and_a_run_need_not_measure_everything() -> None:
    run = [{"epoch": 1.0, "loss": 2.0}, {"epoch": 2.0, "loss": 1.5, "test_accuracy": 0.25}]
    top, bottom = styled(training_curves, [run], title="").axes
    assert [line.get_xydata().tolist() for line in top.lines] == [[[2, 25]]]
    assert [line.get_xydata().tolist() for line in bottom.lines] == [[[1, 2], [2, 1.5]]]
    assert top.lines[0].get_marker() == "o", "one epoch is a dot, not an invisible line"


def test_a_ranking_shows_seeds_means_and_intervals_in_percent() -> None:
    (axes,) = figure_of("ranking").axes
    bar, seeds, mean = (line.get_xdata() for line in axes.lines[:3])
    half = 12.706 * np.std([29, 31], ddof=1) / np.sqrt(2)  # Student's t with one degree of freedom
    assert bar == pytest.approx([30 - half, 30 + half], abs=1e-3)
    assert (seeds, mean) == (pytest.approx([29, 31]), pytest.approx([30]))
    assert [line.get_ydata()[0] for line in axes.lines] == [0, 0, 0, 1, 1, 1]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["IKL-KD", "KD"]
    assert axes.yaxis_inverted(), "the first row is on top"


def _means(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.bincount(labels, values) / np.bincount(labels)


def test_margin_differences_are_those_of_class_means_sorted() -> None:
    (axes,) = styled(margin_differences, FIRST, SECOND, title="").axes
    natural, adversarial = (
        _means(FIRST[key], FIRST["labels"]) - _means(SECOND[key], SECOND["labels"])
        for key in ("natural_margin", "adversarial_margin")
    )
    assert [bar.get_height() for bar in axes.patches] == pytest.approx(sorted(natural, reverse=True))
    assert axes.lines[0].get_ydata() == pytest.approx(adversarial[np.argsort(-natural)])


def test_robust_class_accuracy_needs_both_images_right() -> None:
    pictures = make_pictures(4, classes=10)
    right = pictures["natural"] == pictures["labels"]
    robust = right & (pictures["adversarial"] == pictures["labels"])
    (axes,) = styled(class_accuracies, pictures, title="").axes
    heights = np.reshape([bar.get_height() for bar in axes.patches], (2, 10))
    assert heights[0] == pytest.approx(100 * _means(right, pictures["labels"]))
    assert heights[1] == pytest.approx(100 * _means(robust, pictures["labels"]))


def test_a_strip_shows_the_images_and_gray_pixels_if_they_agree() -> None:
    pictures = make_pictures(5)
    pictures["adversarial_images"][:, :, 0, 0] = pictures["natural_images"][:, :, 0, 0]
    images = [np.asarray(axes.images[0].get_array()) for axes in styled(image_strip, pictures, title="").axes]
    assert np.array_equal(images[0], pictures["natural_images"][0].transpose(1, 2, 0))
    assert np.array_equal(images[3], pictures["adversarial_images"][0].transpose(1, 2, 0))
    assert np.array_equal(images[6][0, 0], [0.5, 0.5, 0.5])
    assert max(np.abs(image - 0.5).max() for image in images[6:]) == pytest.approx(0.5)


def test_dynamics_are_means_over_the_epochs_that_all_seeds_have_with_their_range_as_a_band() -> None:
    trades = [[{"epoch": e, "robust_accuracy": e / 10 + seed / 100} for e in range(1, 4 + seed)] for seed in range(2)]
    ikl = [[{"epoch": e, "robust_accuracy": e / 5, "mask_rate": 0.5} for e in (1, 2)]]
    (axes,) = _dynamics(TRADES=trades, IKL=ikl).axes
    lines = [line.get_xydata().tolist() for line in axes.lines if len(line.get_xdata())]
    assert lines[0] == [[e, pytest.approx(10 * e + 0.5)] for e in (1, 2, 3)]
    assert lines[1] == [[1, pytest.approx(20)], [2, pytest.approx(40)]]
    (band,) = axes.collections
    assert sorted({round(y, 6) for _, y in band.get_paths()[0].vertices}) == [10, 11, 20, 21, 30, 31]
    assert "robust" in axes.get_title(), "the mask rate of one method compares nothing"
    one_epoch = [[{"epoch": 1, "test_accuracy": 0.5}]]
    assert not panels({"TRADES": one_epoch, "IKL": one_epoch})
    assert not panels({"TRADES": [EPOCHS], "IKL": [[{"epoch": e, "mask_rate": 0.5} for e in (1, 2)]]})


def test_a_method_has_one_color_and_dashes_tell_its_lines_apart() -> None:
    looks = line_looks(["TRADES, PGD", "IKL-AWP (3 seeds)", "TRADES, CW", "PGD-AT"])
    assert [look["ls"] for look in looks] == ["-", "-", "--", "-"]
    assert looks[0]["color"] == looks[2]["color"] == method_color("TRADES-AWP")
    assert len({look["color"] for look in looks}) == 3
