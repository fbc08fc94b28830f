#!/usr/bin/env bash
# Builds the wheel, installs it in an empty virtual environment, and uses it from another folder: make wheel-test.
# What the wheel requires is linked from .venv. FRESH=1 downloads the newest versions that pyproject.toml allows instead,
# as `pip install` does, which takes minutes.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

own="$root/.venv/bin/python"
"$own" -m build --wheel --no-isolation --outdir "$work/dist" "$root" >/dev/null
wheel=$(ls "$work"/dist/*.whl)
"${PYTHON:-python3}" -m venv --without-pip "$work/venv"
python="$work/venv/bin/python"
dkl="$work/venv/bin/dkl"
site=$("$python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")

# install EXTRAS: the wheel with what it and its extras require
install() {
  if [ -n "${FRESH:-}" ]; then
    "$own" -m pip --python "$python" install --quiet "$wheel${1:+[$1]}"
  else
    "$own" -m pip --python "$python" install --quiet --no-deps --force-reinstall "$wheel"
    # shellcheck disable=SC2086  # several extras are several words
    "$own" "$root/scripts/link_requirements.py" "$wheel" "$site" ${1//,/ }
  fi
}
install ""

mkdir "$work/elsewhere"
cd "$work/elsewhere"
"$dkl" --help
"$dkl" train loss=ikl trainer.epochs=1 budget=smoke
"$python" -m dkl evaluate run="$(ls -d results/runs/generated-*)" attacks=pgd n=16
"$dkl" tables smoke=true

# Without extras an option that needs one is refused in one line that names it.
if "$dkl" train data=digits trainer.epochs=1 2>error.txt; then echo "data=digits works without its extra" >&2; exit 1; fi
grep -F "dkl[digits]" error.txt
install digits,figures
"$dkl" train data=digits trainer.epochs=1
"$dkl" reproduce experiment=quickstart dry_run=true
"$dkl" tables --html smoke=true
test -f results/records/*.json -a -f results/index.html
"$python" -c "
import dkl, pathlib
assert pathlib.Path(dkl.__file__).is_relative_to('$work'), dkl.__file__
print('the wheel works from', pathlib.Path.cwd())"
