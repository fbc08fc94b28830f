#!/usr/bin/env bash
# Runs a grid on this machine, JOBS runs at a time, with Hydra's joblib launcher. Arguments replace the grid below.
set -euo pipefail
if [ $# -eq 0 ]; then
  set -- data=cifar10 recipe=official budget=mini loss=ikl loss.wmse_weight=12,16,20,24 seed=0,1,2
fi
exec dkl train -m hydra/launcher=joblib hydra.launcher.n_jobs="${JOBS:-2}" "$@"
