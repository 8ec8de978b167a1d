"""``python -m bench [names]``: measures speed and memory against their bounds.

Every figure is a median over rounds; where PyTorch is there, its rounds alternate with Treadle's,
on the same number of threads. Bounds hold on a quiet machine of two cores. Ends with exit code 1
where a bound is not met.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

from bench import (
    compiling,
    control,
    demo,
    functions,
    importing,
    inference,
    kernels,
    loader,
    memory,
    recording,
    serving,
    step,
    threads,
)
from bench.harness import (
    FunctionOptions,
    ModelOptions,
    Options,
    Peer,
    Row,
    environment,
    find_torch,
    print_table,
)
from bench.models import report
from bench.models.catalog import PROGRAMS
from bench.models.nets import NETS

BENCHMARKS: dict[str, tuple[Callable[[Options], list[Row]], str]] = {
    "recording": (recording.run, "2,000 operations on 4x4, their gradient, and reading it"),
    "step": (step.run, "a LeNet training step at batch 64"),
    "gemm": (partial(kernels.run, only="gemm"), "matrix products beside oneDNN and PyTorch"),
    "conv": (partial(kernels.run, only="conv"), "convolutions beside PyTorch"),
    "functions": (functions.run, "every kind of function beside PyTorch, at 1 to 10M elements"),
    "loops": (partial(kernels.run, only="loop"), "loops beside PyTorch and JAX"),
    "models": (report.run, "whole models beside PyTorch, JAX and ONNX Runtime"),
    "inference": (inference.run, "program files beside ONNX Runtime and PyTorch"),
    "serving": (serving.run, "a program file asked from many threads"),
    "import": (importing.run, "import treadle, less bare Python"),
    "memory": (memory.run, "10,000 steps whose summed loss nobody reads"),
    "compile": (compiling.run, "compiling kernels, and loading them from the cache"),
    "threads": (threads.run, "fork and join, steadiness, and two processes on the same cores"),
    "control": (control.run, "an LSTM by scan beside the same as a Python loop"),
    "loader": (loader.run, "a DataLoader over 10,000 PNG files, with two workers"),
    "demo": (demo.run, "the demo with a cold kernel cache"),
}


def _arguments() -> argparse.Namespace:
    names = "\n".join(f"  {name:10} {text}" for name, (_, text) in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, epilog=f"benchmarks:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="name", help="which to run (all by default)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds per figure (default 15)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--torch", metavar="PYTHON", default="",
        help="interpreter that has PyTorch (default: this one, if it has)",
    )  # fmt: skip
    parser.add_argument("--jax", metavar="PYTHON", default="", help="interpreter that has JAX")
    parser.add_argument(
        "--onednn", metavar="PYTHON", default="",
        help="interpreter of an environment with oneDNN (onednn-cpu-gomp)",
    )  # fmt: skip
    models = parser.add_argument_group("of models")
    models.add_argument(
        "--only", action="append", default=[], choices=[*PROGRAMS], metavar="PROGRAM",
        help=f"run this program (may be given again); there are {', '.join(PROGRAMS)}",
    )  # fmt: skip
    models.add_argument(
        "--check", action="store_true", help="compare the losses of 20 steps with PyTorch's instead"
    )
    models.add_argument(
        "--one-thread", action="store_true",
        help="on one thread and by CPU time, which says most on a machine that has other work",
    )  # fmt: skip
    models.add_argument(
        "--beside", action="append", default=[], choices=report.PEERS, metavar="PEER",
        help=f"compare with this only (may be given again); there are {', '.join(report.PEERS)}",
    )  # fmt: skip
    models.add_argument(
        "--profile", choices=[*PROGRAMS], default="", metavar="PROGRAM",
        help="say where the time of a step goes instead",
    )  # fmt: skip
    models.add_argument(
        "--net", action="append", default=[], choices=[*NETS], metavar="NET",
        help=f"of the inferences, this one (may be given again); there are {', '.join(NETS)}",
    )  # fmt: skip
    models.add_argument(
        "--ort", metavar="PYTHON", default="",
        help="interpreter that has ONNX Runtime, with PyTorch and onnxscript to export the models",
    )  # fmt: skip
    of_functions = parser.add_argument_group("of functions")
    of_functions.add_argument(
        "--size", action="append", default=[], type=int, metavar="N",
        help="this number of elements (may be given again)",
    )  # fmt: skip
    of_functions.add_argument("--named", default="", help="functions with this in their name")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if options.rounds < 1:
        parser.error(f"--rounds got {options.rounds}; expected 1 or more")
    return options


def main() -> int:
    """Runs the benchmarks that were named and prints what came out."""
    arguments = _arguments()
    interpreter = find_torch(arguments.torch)
    results: dict[str, list[Row]] = {}
    with (
        Peer("Torch", interpreter) as torch,
        Peer("JAX", arguments.jax) as jax,
        Peer("oneDNN", arguments.onednn) as onednn,
    ):
        facts = environment(torch)
        if not arguments.json:
            print(facts["text"], flush=True)
        of_models = ModelOptions(
            tuple(arguments.only), arguments.check, arguments.one_thread, arguments.profile,
            tuple(arguments.beside), tuple(arguments.net), arguments.ort,
        )  # fmt: skip
        of_functions = FunctionOptions(tuple(arguments.size), arguments.named)
        options = Options(arguments.rounds, torch, jax, onednn, of_models, of_functions)
        for name in arguments.names or BENCHMARKS:
            results[name] = BENCHMARKS[name][0](options)
            if not arguments.json:
                print_table(f"{name}: {BENCHMARKS[name][1]}", results[name])
    if arguments.json:
        rows = {name: [{**asdict(r), "met": r.met} for r in x] for name, x in results.items()}
        print(json.dumps({"machine": facts, "results": rows}, indent=1))
    return int(any(row.met is False for rows in results.values() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
