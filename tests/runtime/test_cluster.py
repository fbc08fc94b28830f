"""Tasks of SLURM and of submitit get torchrun's variables; a process alone gets none."""

import os
import subprocess

import pytest

from dkl.runtime import adopt_tasks

OURS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def adopted(monkeypatch: pytest.MonkeyPatch, **variables: str) -> dict[str, str]:
    """The variables of torchrun after ``adopt_tasks`` in a process that has ``variables``."""
    for name in list(os.environ):
        if name in OURS or name.startswith(("SLURM_", "SUBMITIT_")):
            monkeypatch.delenv(name)
    with monkeypatch.context() as patch:
        patch.setattr(os, "environ", dict(os.environ) | variables)
        patch.setattr(subprocess, "run", lambda *args, **kwargs: subprocess.CompletedProcess(args, 0, "gpu03\ngpu04\n"))
        adopt_tasks()
        return {name: os.environ[name] for name in OURS if name in os.environ}


def test_a_task_of_a_step_of_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    step = {"SLURM_STEP_NUM_TASKS": "16", "SLURM_STEP_NODELIST": "gpu[03-04]", "SLURM_JOB_ID": "20007"}
    found = adopted(monkeypatch, **step, SLURM_PROCID="9", SLURM_LOCALID="1")
    assert found == dict(zip(OURS, ["9", "1", "16", "gpu03", "15007"], strict=True))


def test_a_task_of_submitit_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"SUBMITIT_LOCAL_NTASKS": "2", "SUBMITIT_LOCAL_JOB_ID": "42", "SUBMITIT_LOCAL_GLOBALID": "1"}
    found = adopted(monkeypatch, **job, SUBMITIT_LOCAL_LOCALID="1")
    assert found == dict(zip(OURS, ["1", "1", "2", "127.0.0.1", "15042"], strict=True))


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"SLURM_NTASKS": "16", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7"},  # in a batch script, outside srun
        {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        {"RANK": "3", "SLURM_STEP_NUM_TASKS": "2"},  # torchrun under srun
    ],
    ids=str,
)
def test_other_processes_keep_theirs(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert adopted(monkeypatch, **variables) == {name: variables[name] for name in OURS if name in variables}
