"""``dkl reproduce table=N weights=published``: a table of the paper measured on the networks that others published.

Nothing is trained. The networks are those of RobustBench, or of the authors, that the manifest names for its rows. The
tables of trained rows show their accuracies in columns of their own.
"""

import shlex
from pathlib import Path

from dkl.config import compose_config
from dkl.config.overrides import quoted
from dkl.console import say
from dkl.errors import UserError
from dkl.manifests import keep, load
from dkl.manifests.jobs import rows_named
from dkl.options import default_results
from dkl.reporting import write_tables
from dkl.reproduction.planning import Options
from dkl.runtime.device import pick_device


def reproduce_published(options: Options) -> None:
    """Evaluate the published network of every row, and write and print the table; overrides are of dkl evaluate.

    AutoAttack is bounded on a CPU and standard elsewhere unless the overrides say otherwise. All are checked before the
    first is attacked. Exits with 1 if a row failed, after all others are done. Raises UserError if no row has one.
    """
    from dkl.evaluation import evaluate, preflight

    manifest, overrides = load(options.name), options.request.overrides
    rows = rows_named(manifest, options.request.row)
    networks = {row.name: network for row in rows if (network := manifest.network(row))}
    if not networks:
        what = f"row {rows[0].name} of {manifest.name} has no" if len(rows) == 1 else f"no row of {manifest.name} has"
        raise UserError(f"{what} published weights: leave out weights=published, or choose table=2 or table=3")
    given = dict(text.partition("=")[::2] for text in overrides)
    results = Path(given.get("paths.results", default_results()).strip("'\""))
    kind = pick_device(given.get("device", "auto")).type
    shared = [] if "attacks" in given else [f"attacks={'bounded' if kind == 'cpu' else 'standard'}"]
    shared += [*([] if "paths.results" in given else [f"paths.results={quoted(str(results))}"]), *overrides]
    configs, failures = {}, {}
    for name, network in networks.items():
        if options.dry_run:
            print(shlex.join(["dkl", "evaluate", f"model={network.name}", f"data={network.dataset}", *shared]))
            continue
        try:
            chosen = [f"data={network.dataset}", f"network={quoted(network.name)}"]
            configs[name] = compose_config("evaluate", [*chosen, *shared])
            preflight(configs[name])
        except UserError as error:
            failures[name] = str(error)
    if configs and options.name.endswith(".yaml"):
        keep(Path(options.name), results, ())
    evaluated = 0
    for number, (name, cfg) in enumerate(((n, c) for n, c in configs.items() if n not in failures), 1):
        say(f"{number}/{len(networks)}  {name}: {networks[name].name}")
        try:
            evaluate(cfg)
            evaluated += 1
        except UserError as error:
            failures[name] = str(error)
    if evaluated:
        print(write_tables(results).text_of(manifest.name))
        say(f"Tables (md, csv, tex, html): {results}/tables/{manifest.name}-*")
    for name, reason in failures.items():
        say(f"failed: {name}: {reason}")
    if failures:
        raise SystemExit(1)
