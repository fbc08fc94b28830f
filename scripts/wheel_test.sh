#!/usr/bin/env bash
# Builds the wheel, installs it in an empty virtual environment, and uses it from another folder: make wheel-test.
# Most of the time is spent on installing torch.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$root/.venv/bin/python" -m build --wheel --no-isolation --outdir "$work/dist" "$root" >/dev/null
"${PYTHON:-python3}" -m venv "$work/venv"
python="$work/venv/bin/python"
dkl="$work/venv/bin/dkl"
# The newest versions that pyproject.toml allows, not the locked ones: this is what `pip install` gives a user.
"$python" -m pip install --quiet "$work"/dist/*.whl

mkdir "$work/elsewhere"
cd "$work/elsewhere"
"$dkl" --help
"$dkl" train loss=ikl trainer.epochs=1 budget=smoke
"$python" -m dkl evaluate run="$(ls -d results/runs/generated-*)" attacks=pgd n=16
"$dkl" tables smoke=true

# Without extras an option that needs one is refused in one line that names it.
if "$dkl" train data=digits trainer.epochs=1 2>error.txt; then echo "data=digits works without its extra" >&2; exit 1; fi
grep -F "dkl[digits]" error.txt
"$python" -m pip install --quiet "$(ls "$work"/dist/*.whl)[digits,figures]"
"$dkl" train data=digits trainer.epochs=1
"$dkl" reproduce experiment=quickstart dry_run=true
"$dkl" tables --html smoke=true
test -f results/records/*.json -a -f results/index.html
"$python" -c "
import dkl, pathlib
assert pathlib.Path(dkl.__file__).is_relative_to('$work'), dkl.__file__
print('the wheel works from', pathlib.Path.cwd())"
