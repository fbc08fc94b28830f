"""Figures of single runs and evaluations: features, attack steps, training curves, masks, and attacked images."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from dkl.config import row_identity
from dkl.errors import UserError
from dkl.manifests import Manifest, identities
from dkl.records import Curves, Record, load_curves
from dkl.reporting.boards.cells import budget_title
from dkl.reporting.figures import series
from dkl.reporting.figures.pictures import Pictures
from dkl.reporting.figures.plots.curves import step_curves, training_curves
from dkl.reporting.figures.plots.features import embedding, margin_differences
from dkl.reporting.figures.plots.masks import iou_bars, read_masks, side_by_side
from dkl.reporting.figures.plots.model import class_accuracies, image_strip
from dkl.reporting.figures.titles import Drawing, file_name, seed_text, title_of
from dkl.reporting.grouping import created_at, group, weights_kind
from dkl.reporting.names import slug


def features(manifests: Sequence[Manifest], pictures: Sequence[Pictures], problems: list[str]) -> Iterator[Drawing]:
    """Figure 3 or one like it: the two rows that its manifest names, at one seed, on the same images."""
    for manifest in manifests:
        settings = manifest.figure
        trained = [found for found in pictures if found.about["training"] and settings.get("draw") == "features"]
        for budget, here in group(trained, lambda found: found.budget).items():
            try:
                hashes = identities(manifest, budget)
            except UserError as error:
                problems.append(f"{manifest.name}.yaml, budget {budget}: {error}")
                continue
            pairs = []
            # Margins and features are comparable only under the same conditions.
            for alike in group(here, lambda found: found.conditions).values():
                known = {row_identity(found.about["training"]): found for found in alike}
                pair = [known.get(hashes[settings[key]]) for key in ("first", "second")]
                pairs += [(first, second) for first, second in [pair] if first and second]
            if pairs:  # the pair with the most images, then the lowest seed
                first, second = min(pairs, key=lambda pair: (-pair[0].about["n"], pair[0].about["seed"]))
                rest = (seed_text(first.about), budget_title(budget))
                for part, one in (("a", first), ("b", second)):
                    title = title_of(f"{one.about['method']}: features", *rest)
                    yield file_name(manifest, part, budget), partial(embedding, one, title=title)
                title = title_of(f"Class margins: {first.about['method']} minus {second.about['method']}", *rest)
                yield file_name(manifest, "c", budget), partial(margin_differences, first, second, title=title)


def steps(records: Sequence[Record]) -> Iterator[Drawing]:
    """Robustness by the number of steps: PGD and CW of one dataset, threat model and budget on one figure."""
    attacked = [record for record in records if series.steps_of(record)[0]]
    alike = group(attacked, lambda r: (r.budget, r.dataset, r.norm, r.eps_text, r.n, r.search.get("precision")))
    for same in alike.values():
        lines = [
            replace(line, label=f"{line.label}, {kind}")
            for kind, own in group(same, lambda record: series.steps_of(record)[0]).items()
            for line in series.step_lines(own)
        ]
        if lines:
            one, precision = same[0], str(same[0].search.get("precision", ""))
            threat, images = f"{one.norm} {one.eps_text}", f"{one.n:,} images"
            title = title_of(one.dataset, threat, images, precision, budget_title(one.budget))
            name = slug(f"steps-{one.budget}-{one.dataset}-{one.norm}-{one.eps_text}-{one.n}-{precision}".rstrip("-"))
            yield name, partial(step_curves, lines, title=title)


def curves_of_seeds(records: Sequence[Record], folder: Path, problems: list[str]) -> list[Curves]:
    """Return the curves of ``records`` that have some, one per seed."""
    runs = []
    for same in group(records, lambda record: record.seed).values():
        try:
            runs.append(load_curves(folder / f"{max(same, key=created_at).id}.json"))
        except UserError as error:
            problems.append(str(error))
    return [run for run in runs if run]


def curves(records: Sequence[Record], folder: Path, problems: list[str]) -> Iterator[Drawing]:
    """Training curves: one figure per trained row, one line per seed."""
    for own in group((r for r in records if r.training), lambda r: (r.budget, r.row)).values():
        if runs := curves_of_seeds(own, folder, problems):
            one, seeds = own[0], f"{len(runs)} seeds" if len(runs) > 1 else f"seed {own[0].seed}"
            title = title_of(one.method, one.dataset, one.architecture, seeds, budget_title(one.budget))
            name = slug(f"curves-{one.budget}-{one.dataset}-{one.architecture}-{one.method}-{one.row}")
            yield name, partial(training_curves, runs, title=title)


def masks(records: Sequence[Record], folder: Path, problems: list[str]) -> Iterator[Drawing]:
    """IoU per class, and images beside their masks: two figures per row of networks that label pixels."""
    dense = [record for record in records if record.segmented is not None]
    for own in group(dense, lambda record: (record.budget, record.row, weights_kind(record))).values():
        # The lowest seed stands for its row, by its newest evaluation of the most images: more would fill the page.
        lowest = min(own, key=lambda each: -1 if each.seed is None else each.seed).seed
        record = max((each for each in own if each.seed == lowest), key=lambda each: (each.n, created_at(each)))
        assert record.segmented is not None
        seed = "" if record.seed is None else f"seed {record.seed}"
        title = title_of(record.method, record.dataset, seed, budget_title(record.budget))
        bars = partial(iou_bars, record.segmented.iou, record.segmented.miou, title=title)
        yield slug(f"iou-{record.budget}-{record.id}"), bars
        path = folder / f"{record.id}.npz"
        if path.is_file():
            try:
                yield slug(f"masks-{record.budget}-{record.id}"), partial(side_by_side, read_masks(path), title=title)
            except UserError as error:
                problems.append(str(error))


def models(pictures: Sequence[Pictures]) -> Iterator[Drawing]:
    """Accuracy per class and a strip of images: one figure each per model."""
    for found in pictures:
        about = found.about
        title = title_of(about["method"], about["dataset"], seed_text(about), budget_title(found.budget))
        for kind, draw in (("classes", class_accuracies), ("images", image_strip)):
            yield slug(f"{kind}-{found.budget}-{about['id']}"), partial(draw, found, title=title)
