"""Memory over 10,000 steps of a training whose summed loss nobody reads."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

from bench.harness import ROOT, Options, Row

STEPS = (1_000, 10_000)
_MB = 2**20
_NUMBERS = 64 << 10  # the table of numbers seen lately
_BUDGET = 1 << 20  # the pending graph's budget ends within a step, now here, now there
_RESIDENT = 4 << 20  # Python's own heap breathes


def measure(kind: str) -> list[dict[str, int]]:
    """Bytes at each of STEPS, in this process: the child's part."""
    import treadle
    from treadle import nn, optim

    net = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
    optimizer = optim.SGD(net.parameters(), lr=0.01)
    x, total, found = treadle.ones(32, 64), treadle.zeros(()), []
    for i in range(1, STEPS[-1] + 1):
        loss = net(x).square().mean()
        if kind == "training":
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total = total + loss
        else:
            total = total + loss.detach()
        if i in STEPS:
            stats = treadle.memory_stats()
            with open("/proc/self/statm") as file:
                resident = int(file.read().split()[1]) * resource.getpagesize()
            found.append({"current": stats["allocated.current"], "peak": stats["allocated.peak"],
                          "resident": resident})  # fmt: skip
    if not total.item() > 0:
        raise RuntimeError(f"the sum of the losses is {total.item()}; expected a positive number")
    return found


def _child(kind: str) -> list[dict[str, int]]:
    code = f"import json; from bench.memory import measure; print(json.dumps(measure({kind!r})))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def run(options: Options) -> list[Row]:
    """Figures at step 1,000 bound those at step 10,000."""
    rows = []
    reference = options.torch.ask("memory", steps=list(STEPS)) if options.torch else [None, None]
    for kind, title in (("training", "training"), ("forward", "forward passes only")):
        first, last = _child(kind)
        for name, slack in (("current", _NUMBERS), ("peak", _BUDGET), ("resident", _RESIDENT)):
            torch = reference if name == "resident" and kind == "training" else [None, None]
            rows.append(Row(f"{title}: {name}, step {STEPS[0]:,}", first[name] / _MB, torch[0],
                            unit="MB"))  # fmt: skip
            rows.append(Row(f"{title}: {name}, step {STEPS[1]:,}", last[name] / _MB, torch[1],
                            unit="MB", bound=(first[name] + slack) / _MB))  # fmt: skip
    return rows
