#!/usr/bin/env bash
# Searches with optuna (TRIALS runs) for the highest robust accuracy on held-out images, or the highest test accuracy if no
# images are held out. Arguments replace the search below. An interrupted search continues: its seeded sampler proposes the
# same runs again, and finished ones are not repeated. Failed runs are skipped, and the script then exits with status 2.
# The best point is written to FOLDER/optimization_results.yaml.
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
