#!/usr/bin/env bash
# A search by optuna (TRIALS runs) for the highest held-out robust accuracy, or test accuracy where nothing is held out.
# Arguments take the place of the search below. Stopped, it goes on: its seeded sampler asks for the same runs again, and
# those are trained. A run that fails is passed over, and the script then ends with 2. The best point is written to
# FOLDER/optimization_results.yaml.
set -euo pipefail
folder=${FOLDER:-results/sweeps/search}
if [ $# -eq 0 ]; then
  set -- data=cifar100 recipe=official trainer.epochs=50 selection.holdout=1000 selection.every=5 loss=ikl \
    'loss.wmse_weight=tag(log, interval(4.0, 40.0))' 'loss.ce_weight=interval(1.0, 10.0)' task.prior_temperature=1,2,4,8
fi
best=$folder/optimization_results.yaml status=0
rm -f "$best"
dkl train -m hydra/sweeper=optuna hydra.sweeper.n_trials="${TRIALS:-30}" hydra.sweeper.n_jobs=1 \
  hydra.sweeper.direction=maximize hydra.sweeper.sampler.seed=0 hydra.sweeper.max_failure_rate=1 \
  hydra.sweep.dir="$folder" "$@" || status=$?
if [ -e "$best" ]; then cat "$best"; fi
exit "$status"
