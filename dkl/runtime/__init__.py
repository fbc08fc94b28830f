"""Processes, devices and signals; here what a launcher has started, which needs no torch to know."""

import os
import subprocess

PORTS = range(15_000, 35_000)
"""Of these a job of SLURM or submitit takes one."""


def launched() -> int:
    """Return how many processes torchrun, or another launcher with its variables, has started; 0 if none has."""
    return int(os.environ.get("WORLD_SIZE", 0)) if "RANK" in os.environ else 0


def adopt_tasks() -> None:
    """Set torchrun's variables if this process is one of several tasks of a job of SLURM or submitit.

    Both start every task of a job with the same command. Variables that are set stay.
    """
    env = os.environ
    if "RANK" in env:
        return
    # A step of srun; the batch script itself is no step of several tasks, even if its job asks for them.
    if int(env.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        task = {"RANK": env["SLURM_PROCID"], "LOCAL_RANK": env["SLURM_LOCALID"]}
        command = ["scontrol", "show", "hostnames", env["SLURM_STEP_NODELIST"]]  # of a list such as gpu[03-04]
        hosts = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        size, job, host = env["SLURM_STEP_NUM_TASKS"], env["SLURM_JOB_ID"], hosts[0]
    elif int(env.get("SUBMITIT_LOCAL_NTASKS", 1)) > 1:
        task = {"RANK": env["SUBMITIT_LOCAL_GLOBALID"], "LOCAL_RANK": env["SUBMITIT_LOCAL_LOCALID"]}
        size, job, host = env["SUBMITIT_LOCAL_NTASKS"], env["SUBMITIT_LOCAL_JOB_ID"], "127.0.0.1"
    else:
        return
    # By its number, so that jobs on one machine take different ones.
    port = PORTS[int(job.partition("_")[0]) % len(PORTS)]
    env.update(task, WORLD_SIZE=size, MASTER_ADDR=host, MASTER_PORT=str(port))
