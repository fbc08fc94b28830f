"""Tasks of SLURM or submitit that work on one job, as processes of torch.distributed.

srun and submitit start every task of a job with the same command. torchrun's variables then say what torch asks for.
"""

import os
import subprocess

PORTS = range(15_000, 35_000)
"""Of these a job takes one by its number, so that jobs on one machine take different ones."""


def adopt_tasks() -> None:
    """Set torchrun's variables if this process is one of several tasks of a job, and nothing has set them."""
    env = os.environ
    if "RANK" in env:
        return
    # A step of srun; the batch script itself is no step of several tasks, even if its job asks for them.
    if int(env.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        task = {"RANK": env["SLURM_PROCID"], "LOCAL_RANK": env["SLURM_LOCALID"]}
        size, job, host = env["SLURM_STEP_NUM_TASKS"], env["SLURM_JOB_ID"], _first_host(env["SLURM_STEP_NODELIST"])
    elif int(env.get("SUBMITIT_LOCAL_NTASKS", 1)) > 1:
        task = {"RANK": env["SUBMITIT_LOCAL_GLOBALID"], "LOCAL_RANK": env["SUBMITIT_LOCAL_LOCALID"]}
        size, job, host = env["SUBMITIT_LOCAL_NTASKS"], env["SUBMITIT_LOCAL_JOB_ID"], "127.0.0.1"
    else:
        return
    port = PORTS[int(job.partition("_")[0]) % len(PORTS)]
    env.update(task, WORLD_SIZE=size, MASTER_ADDR=host, MASTER_PORT=str(port))


def _first_host(nodes: str) -> str:
    """The first machine of SLURM's list, such as ``gpu[03-04]``."""
    shown = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
    return shown.stdout.split()[0]
