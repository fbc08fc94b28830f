"""The three parts: correctness, speed of training, and a small experiment."""

from scripts.gpu_acceptance import correctness, experiment, speed
from scripts.gpu_acceptance.steps import Step

ON_PAPER = "estimate on paper for one H100, never measured"

PARTS: dict[int, list[Step]] = {
    1: [
        Step("machine", "one GPU is found", correctness.machine, 5),
        Step("tests", "no test fails", correctness.gpu_tests, 150),
        Step("losses", "relative difference below 1e-12 in float64", correctness.losses, 10),
        Step("float64 training", "equal to the CPU's to 1e-6 after six steps", correctness.training, 40),
        Step("PGD-20", "at most one flag differs from the CPU's", correctness.flags, 60),
        Step("resume", "a run that another kind of device began ends", correctness.crossing, 40),
    ],
    2: [
        Step(
            f"epoch of PRN-18, {name}",
            f"{expected} s, {ON_PAPER}",
            speed.epoch("preact_resnet18", options),
            seconds,
        )
        for name, expected, options, seconds in (
            ("TF32", "6 to 15", (), 40),
            ("IEEE float32", "20 to 40", ("trainer.matmul=ieee",), 60),
            ("bfloat16", "5 to 9", ("trainer.precision=bf16",), 30),
            ("bfloat16, compiled", "3 to 7", ("trainer.precision=bf16", "trainer.compile=true"), 120),
            ("bfloat16, CUDA graphs", "2 to 5", ("trainer.precision=bf16", "trainer.compile=reduce-overhead"), 120),
        )
    ]
    + [
        Step("epoch of WRN-34-10, TF32", f"80 to 140 s, {ON_PAPER}", speed.epoch("wrn34_10", (), share=0.1), 40),
        Step(
            "epoch of WRN-34-10, bfloat16",
            f"40 to 70 s, {ON_PAPER}",
            speed.epoch("wrn34_10", ("trainer.precision=bf16",), share=0.1),
            30,
        ),
        Step("GPU-busy share of a step", f"half in bfloat16 without CUDA graphs, {ON_PAPER}", speed.busy, 30),
    ],
    3: [
        Step("robust training", "robust accuracy rises above 25 % in eight epochs", experiment.robust_training, 150),
        Step("AutoAttack, batch 200", f"10 to 60 images/s, {ON_PAPER}", experiment.autoattack(200), 100),
        Step("AutoAttack, batch 1000", "not slower than batch 200", experiment.autoattack(1000), 100),
        Step("distillation", f"1 to 4 s per epoch, {ON_PAPER}", experiment.distillation, 90),
    ],
}
