#!/usr/bin/env bash
# Build the wheel, install it into an empty virtual environment with its dependencies, and use it from another folder.
# Takes as long as installing torch does. Run by CI; by hand: make wheel-test.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$root/.venv/bin/python" -m build --wheel --outdir "$work/dist" "$root" >/dev/null
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet "$work"/dist/*.whl

mkdir "$work/elsewhere"
cd "$work/elsewhere"
dkl="$work/venv/bin/dkl"
"$dkl" --help
"$dkl" train loss=ikl trainer.epochs=1 budget=smoke
"$work/venv/bin/python" -m dkl evaluate run="$(ls -d results/runs/generated-*)" attacks=pgd n=16
"$dkl" tables --html smoke=true
"$dkl" reproduce experiment=quickstart dry_run=true
test -f results/records/*.json -a -f results/index.html
"$work/venv/bin/python" -c "
import dkl, pathlib
assert pathlib.Path(dkl.__file__).is_relative_to('$work'), dkl.__file__
print('the wheel works from', pathlib.Path.cwd())"
