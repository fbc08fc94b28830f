"""The list of docs/zoo.md is that of the table of published networks. ``python -m tests.docs.test_zoo`` rewrites it."""

from dkl.manifests import load, names
from dkl.published import known_networks, published_entries
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "zoo.md"
START = "<!-- generated: python -m tests.docs.test_zoo -->\n"


def zoo_table() -> str:
    """The number of models that load, and two tables: the authors' networks and RobustBench's models."""
    entries = {(entry.id, entry.dataset, entry.norm): entry for entry in published_entries()}
    known = known_networks()
    lines = [
        f"{sum(each.network is not None for each in known)} of RobustBench's {len(known)} models for Linf and L2 load. "
        "Accuracies are those of the publisher, in percent; parameters in millions.",
        "",
        "| `official:` | data | clean | AutoAttack | parameters | rows |",
        "|---|---|--:|--:|--:|---|",
    ]
    rows: dict[str, list[str]] = {}
    for manifest in map(load, names()):
        place = f"Table {manifest.number}" if manifest.number else manifest.option
        for network, row in ((manifest.network(row), row) for row in manifest.rows):
            rows.setdefault(network.name if network else "", []).append(f"{place} {row.name}")
    for each in known_networks("official"):
        cells = each.id, each.dataset, f"{each.clean:.2f}", f"{each.robust:.2f}", f"{each.parameters / 1e6:.1f}"
        lines.append(f"| {' | '.join(cells)} | {', '.join(rows[each.name])} |")
    lines += [
        "",
        "| `robustbench:` | data | norm | clean | robust | parameters | loads |",
        "|---|---|---|--:|--:|--:|---|",
    ]
    for each in known:
        entry = entries[each.id, each.dataset, each.norm]
        size = f"{each.parameters / 1e6:.1f}" if each.parameters else "–"
        loads = "yes" if each.network else f"no: it {each.why}"
        lines.append(
            f"| {each.id} | {each.dataset} | {each.norm} | {100 * entry.clean:.2f} | {100 * entry.robust:.2f} | {size} "
            f"| {loads} |"
        )
    return "\n".join(lines) + "\n"


def test_the_list_is_current() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.partition(START)[2] == zoo_table()


if __name__ == "__main__":
    PAGE.write_text(PAGE.read_text(encoding="utf-8").partition(START)[0] + START + zoo_table(), encoding="utf-8")
