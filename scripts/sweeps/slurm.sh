#!/usr/bin/env bash
# Runs a grid on a SLURM cluster, one job per run, with Hydra's submitit launcher. Arguments replace the grid below.
# PARTITION is the cluster's; GPUS, CPUS and MINUTES are per job. A job that runs out of time is requeued and continues.
# LAUNCHER=submitit_local runs the same jobs on this machine.
set -euo pipefail
launcher=${LAUNCHER:-submitit_slurm}
options=(hydra.launcher.gpus_per_node="${GPUS:-1}" hydra.launcher.cpus_per_task="${CPUS:-8}"
  hydra.launcher.timeout_min="${MINUTES:-1440}" ${PARTITION:+hydra.launcher.partition="$PARTITION"})
if [ "$launcher" = submitit_slurm ]; then options+=(hydra.launcher.max_num_timeout=20); fi
if [ $# -eq 0 ]; then
  set -- data=cifar100 recipe=official budget=paper loss=ikl loss.wmse_weight=12,16,20,24 seed=0,1,2
fi
exec dkl train -m hydra/launcher="$launcher" "${options[@]}" "$@"
