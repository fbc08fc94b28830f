#!/usr/bin/env bash
# A grid on this machine, JOBS runs at a time, by Hydra's joblib launcher. Arguments take the place of the grid below.
set -euo pipefail
if [ $# -eq 0 ]; then
  set -- data=cifar10 recipe=official budget=mini loss=ikl loss.wmse_weight=12,16,20,24 seed=0,1,2
fi
exec dkl train -m hydra/launcher=joblib hydra.launcher.n_jobs="${JOBS:-2}" "$@"
