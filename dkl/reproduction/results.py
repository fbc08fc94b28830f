"""Tables, figures and the page of a results folder, made from its records."""

from collections.abc import Sequence
from pathlib import Path

from dkl.errors import needs_extra
from dkl.manifests import load_all as load_manifests
from dkl.records import load_all
from dkl.reporting import TablesReport
from dkl.reporting.grouping import load_with_reference
from dkl.reporting.tables import FORMATS


def draw(results: Path, *, include_smoke: bool = False, begins: str = "") -> list[Path]:
    """Draw every figure that has records of ``results`` and whose name starts with ``begins``; return the files.

    Raises NotInstalledError if matplotlib is missing.
    """
    with needs_extra("figures"):
        from dkl.reporting.figures import draw_all

    records, _ = load_all(results / "records")
    manifests, _ = load_manifests(results)  # the tables report those that are wrong
    return draw_all(records, results, manifests, include_smoke=include_smoke, prefix=begins)


def not_rewritten(results: Path, written: Sequence[Path]) -> list[str]:
    """Name the tables and figures of earlier commands, in the folders of the files just ``written``.

    They may show records that are gone or renamed. A table counts if it has all formats, a figure if it has both: the
    other files are not of ``dkl``.
    """
    now = {path.with_suffix("") for path in written}
    kinds = {results / "tables": tuple(FORMATS), results / "figures": ("png", "svg")}
    return [
        str(path.with_suffix(""))
        for folder, (first, *others) in kinds.items()
        if any(path.parent == folder for path in written)
        for path in sorted(folder.glob(f"*.{first}"))
        if path.with_suffix("") not in now and all(path.with_suffix(f".{other}").is_file() for other in others)
    ]


def write_page(results: Path, report: TablesReport, figures: Sequence[Path]) -> Path:
    """Write ``<results>/index.html``, one page with all tables, figures and records; return its path."""
    from dkl.reporting.site import write_site

    records, _ = load_with_reference(results)
    manifests, _ = load_manifests(results)
    return write_site(results, records, report.boards, figures, report.problems, manifests)
