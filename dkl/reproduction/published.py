"""``dkl reproduce table=N weights=published``: a table of the paper measured on the networks that others published.

Nothing is trained. The networks are those of RobustBench, or of the authors, that the manifest names as sources of its
rows. Their accuracies have a column and a table of their own, and are never mixed with those of trained runs.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from dkl.config import compose_config
from dkl.config.overrides import quoted
from dkl.console import say
from dkl.errors import UserError
from dkl.manifests import Manifest, ManifestRow
from dkl.options import default_results
from dkl.published import known_networks
from dkl.records import Record, load
from dkl.reporting.formats import TextTable, to_csv, to_latex, to_markdown, to_terminal
from dkl.reporting.statistics import percent
from dkl.runtime.device import pick_device
from dkl.storage.files import write_text
from dkl.threat import SUITES, gives_result_of


def network_of(manifest: Manifest, row: ManifestRow) -> tuple[str, str] | None:
    """The published network of ``row`` and its dataset; None if its manifest names none that can be built."""
    data = [text for text in (*manifest.overrides, *row.overrides) if text.startswith("data=")]
    # Recipes with synthetic images have data of their own, such as cifar100_50m; test images are the dataset's.
    dataset = re.sub(r"_\d+m$", "", data[-1].removeprefix("data=")) if data else ""
    built = {each.id for each in known_networks() if each.dataset == dataset and each.network}
    names = [source.removeprefix("RobustBench ") for source in row.published if source.startswith("RobustBench ")]
    return next(((f"robustbench:{name}", dataset) for name in names if name in built), None)


def reproduce_published(manifest: Manifest, rows: Sequence[ManifestRow], overrides: Sequence[str]) -> None:
    """Evaluate the published network of every row, and write and print the table. ``overrides`` are of dkl evaluate.

    AutoAttack is bounded on a CPU and standard elsewhere unless ``overrides`` say otherwise. All are checked before the
    first is attacked. Exits with 1 if a row failed, after all others are done. Raises UserError if no row has one.
    """
    from dkl.evaluation import evaluate, preflight

    networks = {row.name: network for row in rows if (network := network_of(manifest, row))}
    if not networks:
        raise UserError(f"no row of {manifest.name} has published weights: leave it out, or choose table=2 or table=3")
    given = dict(text.partition("=")[::2] for text in overrides)
    results = Path(given.get("paths.results", default_results()).strip("'\""))
    kind = pick_device(given.get("device", "auto")).type
    settings = [] if "attacks" in given else [f"attacks={'bounded' if kind == 'cpu' else 'standard'}"]
    configs, failures = {}, {}
    for name, (text, dataset) in networks.items():
        texts = [f"data={dataset}", f"network={quoted(text)}", *settings, f"paths.results={quoted(str(results))}"]
        try:
            configs[name] = compose_config("evaluate", [*texts, *overrides])
            preflight(configs[name])
        except UserError as error:
            failures[name] = str(error)
    measured: dict[str, Record] = {}
    for number, (name, cfg) in enumerate(((n, c) for n, c in configs.items() if n not in failures), 1):
        say(f"{number}/{len(networks)}  {name}: {networks[name][0]}")
        try:
            measured[name] = load(evaluate(cfg))
        except UserError as error:
            failures[name] = str(error)
    if measured:
        table, file = published_table(manifest, rows, networks, measured), f"{manifest.name}-published-weights"
        for extension, text in (("md", to_markdown(table)), ("csv", to_csv(table)), ("tex", to_latex(table, file))):
            write_text(results / "tables" / f"{file}.{extension}", text)
        print(to_terminal(table))
        say(f"Tables (md, csv, tex): {results}/tables/{file}.*")
    for name, reason in failures.items():
        say(f"failed: {name}: {reason}")
    if failures:
        raise SystemExit(1)


def published_table(
    manifest: Manifest,
    rows: Sequence[ManifestRow],
    networks: dict[str, tuple[str, str]],
    measured: dict[str, Record],
) -> TextTable:
    """Return the table of the paper's values beside those ``measured`` on published weights, by the row's name."""
    columns = {
        key: column
        for key, column in manifest.columns.items()
        if column.metric == "clean" or (column.metric == "robust" and column.attacks == "standard" and not column.eps)
    }
    heads = [f"{column.title}, {whose} (%)" for column in columns.values() for whose in ("paper", "published weights")]
    shown = list(dict.fromkeys(key for row in rows for key in row.show))
    lines = []
    for row in rows:
        record = measured.get(row.name)
        cells = [row.label, *(row.show.get(key, "") for key in shown), networks.get(row.name, ("–",))[0]]
        for key, column in columns.items():
            cells += [f"{row.paper[key]:.2f}" if key in row.paper else "–", _value(record, column.metric)]
        lines.append((*cells, str(record.n) if record else "–"))
    return TextTable(
        title=f"{manifest.title} (published weights)",
        header=("Method", *shown, "Network", *heads, "n"),
        rows=tuple(lines),
        alignments="l" * (2 + len(shown)) + "r" * (len(heads) + 1),
        notes=(
            "Published weights: networks that others trained, evaluated here; no row is trained by this project. "
            "Values in brackets are the interval of bounded AutoAttack.",
        ),
        records=tuple((measured[row.name].id,) if row.name in measured else () for row in rows),
    )


def _value(record: Record | None, metric: str) -> str:
    """The accuracy in percent, with the interval of bounded AutoAttack; other attacks have no place in the table."""
    value = None if record is None else getattr(record, metric)
    if (
        record is None
        or value is None
        or (metric == "robust" and not gives_result_of(record.attacks, SUITES["bounded"]))
    ):
        return "–"
    bound = record.bound if metric == "robust" else None
    return percent(value) + (f" [{percent(bound.low)}, {percent(bound.high)}]" if bound else "")
