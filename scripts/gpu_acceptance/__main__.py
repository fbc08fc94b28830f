"""Accept a GPU machine, in three parts of at most eight minutes each.

    python -m scripts.gpu_acceptance prepare FOLDER      on a machine with a network: code, wheels, images: below 55 MB
    bash FOLDER/run.sh 1|2|3 OUT                         on the GPU machine, which needs torch, torchvision and Pillow
    python -m scripts.gpu_acceptance page OUT NAME       results/benchmarks/gpu-NAME.json and .md

``SMALL=1`` tries all three parts on a CPU, or on any accelerator that torch finds, with sizes of seconds.
"""

import argparse
from pathlib import Path

from scripts.gpu_acceptance.page import write_page
from scripts.gpu_acceptance.parts import PARTS
from scripts.gpu_acceptance.prepare import prepare
from scripts.gpu_acceptance.steps import Setting, run_part


def main(arguments: list[str] | None = None) -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.gpu_acceptance", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    preparing = commands.add_parser("prepare", help="write FOLDER, which is copied to the GPU machine")
    preparing.add_argument("folder", type=Path)
    preparing.add_argument("--python", default="3.12", help="version of Python there (3.12)")
    preparing.add_argument("--without-wheels", action="store_true", help="the machine has all libraries")
    running = commands.add_parser("part", help="run one part, which writes OUT/part-N.json")
    running.add_argument("number", type=int, choices=sorted(PARTS))
    running.add_argument("out", type=Path)
    paging = commands.add_parser("page", help="write the page of the parts in OUT")
    paging.add_argument("out", type=Path)
    paging.add_argument("name", help="of the GPU, such as h100")
    options = parser.parse_args(arguments)
    if options.command == "prepare":
        size = prepare(options.folder, python=options.python, wheels=not options.without_wheels)
        print(f"{options.folder}: {size / 1e6:.1f} MB")
    elif options.command == "part":
        print(run_part(options.number, PARTS[options.number], Setting.here(options.out)))
    else:
        print("\n".join(map(str, write_page(options.out, options.name))))


if __name__ == "__main__":
    main()
