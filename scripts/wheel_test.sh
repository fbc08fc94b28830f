#!/usr/bin/env bash
# Builds the wheel, installs it in an empty virtual environment, and uses it from another folder: make wheel-test.
# What the wheel requires is linked from .venv. FRESH=1 downloads the newest versions that pyproject.toml allows instead,
# as `pip install` does, which takes minutes. With the argument "light" only the light core is tested: torch and numpy.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

own="${OWN:-$root/.venv/bin/python}"
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
mkdir "$work/elsewhere"
cd "$work/elsewhere"

# The light core: README's loss and the example of AutoAttack; what needs more names the extra in one line.
install ""
"$python" - "$root/README.md" <<'EOF'
import re, sys, torch
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 100))
optimizer, loader = torch.optim.SGD(model.parameters(), 0.1), [(torch.rand(4, 3, 2, 2), torch.arange(4))]
attack = lambda model, x, y: x + 0.1
exec(re.search(r"```python\n(.*?)```", open(sys.argv[1]).read(), re.S)[1])
loaded = {"hydra", "timm", "torchvision", "pydantic", "pyautoattack", "rich"} & set(sys.modules)
assert not loaded, loaded
EOF
"$python" "$root/examples/autoattack.py" 20 2 20 >/dev/null
if "$dkl" train 2>error.txt; then echo "dkl works without its extra" >&2; exit 1; fi
grep -Fx "error: hydra is not installed: pip install 'dkl[full]'" error.txt
if "$python" -c "import dkl.evaluation" 2>error.txt; then echo "evaluation works without its extra" >&2; exit 1; fi
grep -F "pip install 'dkl[full]'" error.txt
if [ "${1:-}" = light ]; then exit; fi

install full
"$dkl" --help
"$dkl" train loss=ikl trainer.epochs=1 budget=smoke
"$python" -m dkl evaluate run="$(ls -d results/runs/generated-*)" attacks=pgd n=16
"$dkl" tables smoke=true

# Without extras an option that needs one is refused in one line that names it.
if "$dkl" train data=digits trainer.epochs=1 2>error.txt; then echo "data=digits works without its extra" >&2; exit 1; fi
grep -F "dkl[digits]" error.txt
install full,digits,figures
"$dkl" train data=digits trainer.epochs=1
"$dkl" reproduce experiment=quickstart dry_run=true
"$dkl" tables --html smoke=true
test -f results/records/*.json -a -f results/index.html

# The user's own parts of docs/extending.md, in a folder that is no checkout.
mkdir "$work/own"
cd "$work/own"
"$python" - "$root/docs/extending.md" <<'EOF'
import re, sys
from pathlib import Path
for file, text in re.findall(r"^`([\w/]+\.\w+)`:\n\n```\w+\n(.*?)^```", open(sys.argv[1]).read(), re.S | re.M):
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(text)
EOF
export PYTHONPATH=$PWD CONFIGS="hydra.searchpath=[file://$PWD/configs]"
for part in loss=cosine SignDescent Speckle; do
  command=$(grep -m1 "^dkl train .*$part" "$root/docs/extending.md")
  eval "\"$dkl\" ${command#dkl } trainer.epochs=1 data.train_size=80 data.test_size=40"
done
"$dkl" reproduce experiment=experiments/mine.yaml dry_run=true
"$python" -c "
import dkl, pathlib
assert pathlib.Path(dkl.__file__).is_relative_to('$work'), dkl.__file__
print('the wheel works from', pathlib.Path.cwd())"
