"""Give changed inputs to all tools, and print what broke a promise.

python -m tests.fuzz --seed 0 --number 2000 --minutes 60

The promises: a tool ends with exit code 0, 1 or 2; where it fails, it prints one line of error and no traceback; it
ends; the process is not killed by a fault; no code in an input is run; nothing is written but the output, whole; no
connection is opened. Each case depends on the seed and its number alone: --only repeats one and keeps its folder.
"""

import argparse
import collections
import contextlib
import os
import pathlib
import shlex
import sys
import tempfile
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before Paddle is imported; its threads do not survive a fork

import numpy as np

from tests.fuzz import cases, process


def main() -> int:
    arguments = parse_arguments()
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="fuzz."))
    try:
        _import_everything()
        _make_material(scratch / "material")
        numbers = [arguments.only] if arguments.only is not None else range(arguments.first, sys.maxsize)
        return _run(arguments, numbers, scratch)
    finally:
        os.chdir("/")
        if arguments.only is None:
            process.remove(scratch)
        else:
            print(f"kept: {scratch}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the inputs")
    parser.add_argument("--number", type=int, default=2000, help="how many cases to run")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--minutes", type=float, default=60, help="stop after so many minutes")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--seconds", type=float, default=90, help="how long a tool may run")
    parser.add_argument("--only", type=int, metavar="CASE", help="repeat one case, print all, and keep its folder")
    return parser.parse_args()


def _import_everything() -> None:
    """Import what tools import, so that forked processes need not; compute nothing."""
    from paddle_rt.cpu import import_paddle

    import_paddle()
    import nncf  # noqa: F401
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import openvino  # noqa: F401
    import paddle.inference  # noqa: F401
    import paddle2onnx  # noqa: F401
    import paddleseg  # noqa: F401
    from visualdl import LogReader  # noqa: F401

    import paddle_rt.benchmark.measure
    import paddle_rt.config
    import paddle_rt.export.publish
    import paddle_rt.export.quantize
    import paddle_rt.inference.upsample
    import paddle_rt.tasks.classification.task
    import paddle_rt.tasks.segmentation.task
    import paddle_rt.training  # noqa: F401


def _make_material(folder: pathlib.Path) -> None:
    folder.mkdir()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            cases.make_material(folder)
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("the material of the cases cannot be made")


def _run(arguments: argparse.Namespace, numbers: "range | list[int]", scratch: pathlib.Path) -> int:
    begun, running, tried, broken = time.monotonic(), {}, collections.Counter(), []
    codes, queue = collections.Counter(), iter(numbers)
    left = 1 if arguments.only is not None else arguments.number
    with contextlib.suppress(KeyboardInterrupt):  # the summary is printed all the same
        while True:
            while left and len(running) < arguments.jobs and time.monotonic() - begun < 60 * arguments.minutes:
                number, left = next(queue), left - 1
                folder = scratch / f"case_{number}"
                folder.mkdir()
                rng = np.random.default_rng([arguments.seed, number])
                case = cases.make_case(rng, scratch / "material", folder / process.WORK)
                before = process.snapshot(folder / process.WORK)
                child = process.start(case.tool, case.arguments, folder, arguments.seconds)
                running[child] = number, case, folder, before, time.monotonic()
            for child, (number, case, folder, before, since) in list(running.items()):
                if (ended := process.wait(child, since, arguments.seconds)) is None:
                    continue
                del running[child]
                outcome = process.judge(folder, before, case.outputs, ended, arguments.seconds)
                tried[case.tool] += 1
                codes[outcome.code] += 1
                if outcome.problems:
                    broken.append((number, outcome.problems[0]))
                if outcome.problems or arguments.only is not None:
                    _print(arguments.seed, number, case, outcome)
                if arguments.only is None:
                    process.remove(folder)
            if not running and (not left or time.monotonic() - begun >= 60 * arguments.minutes):
                break
            time.sleep(0.02)
    for child, (*_, since) in running.items():
        process.wait(child, since, 0)  # which ends it
    minutes = (time.monotonic() - begun) / 60
    print(f"{tried.total()} inputs in {minutes:.1f} minutes: {', '.join(f'{k} {n}' for k, n in tried.most_common())}")
    print(f"exit codes: {', '.join(f'{code}: {count}' for code, count in sorted(codes.items()))}")
    kinds = collections.Counter(problem.partition(":")[0] for _, problem in broken)
    print(f"{len(broken)} broke a promise{''.join(f', {kind} {count}' for kind, count in kinds.most_common())}")
    return 1 if broken else 0


def _print(seed: int, number: int, case: cases.Case, outcome: process.Outcome) -> None:
    print(f"case {number}: {case.recipe[:300]}")
    print(f"  {case.tool} {shlex.join(case.arguments)[:400]}")
    for problem in outcome.problems:
        print(f"  BROKEN {problem[:500]}")
    if not outcome.problems:
        print(f"  exit code {outcome.code} after {outcome.seconds:.1f} s: {outcome.stderr.strip()[:500]}")
    print(f"  repeat: python -m tests.fuzz --seed {seed} --only {number}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
