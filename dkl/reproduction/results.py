"""What there is under a results folder, folded: tables and RobustBench entries, figures, and the page of it all."""

from collections.abc import Sequence
from pathlib import Path

from dkl.errors import needs_extra
from dkl.manifests import load, names
from dkl.records import load_all
from dkl.reporting import TablesReport, write_tables


def tabulate(results: Path, *, include_smoke: bool = False) -> TablesReport:
    """Write all tables and RobustBench entries. Raises UserError where there is no usable record."""
    return write_tables(results / "records", results / "tables", results / "model_info", include_smoke=include_smoke)


def draw(results: Path, *, include_smoke: bool = False, begins: str = "") -> list[Path]:
    """Draw every figure that can be drawn and whose name ``begins`` so; returns the files."""
    with needs_extra("figures"):
        from dkl.reporting.figures import draw_all

    records, _ = load_all(results / "records")
    return draw_all(records, results, [load(name) for name in names()], include_smoke=include_smoke, prefix=begins)


def write_page(results: Path, report: TablesReport, figures: Sequence[Path]) -> Path:
    """Write ``<results>/index.html``, which holds all of it."""
    from dkl.reporting.site import write_site

    records, _ = load_all(results / "records")
    manifests = [load(name) for name in names()]
    return write_site(results, records, report.boards, figures, report.problems, manifests)
