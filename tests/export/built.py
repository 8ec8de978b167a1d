"""Runs what ``treadle.export.native`` builds, from C, for the tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

CC = shutil.which("cc")
needs_cc = pytest.mark.skipif(CC is None, reason="there is no C compiler here")

_MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include "{name}.h"
{threads}
static void *read_file(const char *path, size_t bytes) {{
    void *data = aligned_alloc(64, (bytes + 64) / 64 * 64);
    FILE *file = fopen(path, "rb");
    if (!file || fread(data, 1, bytes, file) != bytes) exit(3);
    fclose(file);
    return data;
}}
int main(void) {{
    void *state = aligned_alloc(64, {upper}_STATE_BYTES);
    void *arena = {arena};
    int code;
    {init}
    {calls}
    return 0;
}}
"""
_SPREAD = """
#include <pthread.h>
typedef struct { void (*task)(void *, int); void *data; int index; } part;
static void *run(void *p) { part *x = p; x->task(x->data, x->index); return NULL; }
static void spread(void *context, void (*task)(void *, int), void *data, int n) {
    pthread_t threads[256];
    part parts[256];
    for (int i = 0; i < n; i++) {
        parts[i] = (part){task, data, i};
        pthread_create(&threads[i], NULL, run, &parts[i]);
    }
    for (int i = 0; i < n; i++) pthread_join(threads[i], NULL);
    ++*(int *)context;
}
static int jobs;
static const treadle_threads several = {3, &jobs, spread};
"""

_OWN = """
    treadle_threads own;
    int code = {name}_threads_start(&own, 3);
    if (code) return 7;"""


def run_built(built, calls, folder: Path, arena="NULL", threads="NULL", seed=None, own_threads=False):
    """The outputs of calls, each (entry, {input: array}), one after the other on one state."""
    stem = built.name
    (folder / f"{stem}.o").write_bytes(built.object_code)
    (folder / f"{stem}.h").write_text(built.header)
    if built.weights is not None:
        (folder / f"{stem}.weights").write_bytes(built.weights)
    upper = stem.upper()
    weights = f', read_file("{stem}.weights", {upper}_WEIGHTS_BYTES)'
    init = [f"code = {stem}_init(state{weights if built.weights is not None else ''});"]
    if seed is not None:
        init.append(f"if (!code) code = {stem}_seed(state, {seed}, 0);")
    body = []
    for number, (entry, arrays) in enumerate(calls):
        s = next(s for s in built.signatures if s.graph == entry)
        given = []
        for a in s.inputs:
            path = f"in{number}_{a.name}"
            np.ascontiguousarray(arrays[a.told], a.dtype.numpy).tofile(folder / path)
            given.append(f'read_file("{path}", {a.nbytes})')
        body += [f"void *out{number}_{a.name} = malloc({a.nbytes} + 1);" for a in s.outputs]
        given += [f"out{number}_{a.name}" for a in s.outputs]
        body.append(f"code = {stem}_{s.name}(state, arena, {threads}, {', '.join(given)});")
        body.append(f"if (code) {{ puts({stem}_error(code)); return 9; }}")
        for a in s.outputs:
            body.append(
                f'{{ FILE *f = fopen("out{number}_{a.name}", "wb"); '
                f"fwrite(out{number}_{a.name}, 1, {a.nbytes}, f); fclose(f); }}"
            )
    init.append(f"if (code) {{ puts({stem}_error(code)); return 8; }}")
    text = _MAIN.format(
        name=stem, upper=upper, threads=_SPREAD if threads == "&several" else "", arena=arena,
        init="\n    ".join(init), calls="\n    ".join(body),
    )  # fmt: skip
    (folder / "main.c").write_text(text)
    if own_threads:
        text = text.replace("int code;", _OWN.format(name=stem))
        (folder / "main.c").write_text(text)
    command = [CC, "-std=c11", "-Wall", "-Wextra", "-Werror", "main.c", f"{stem}.o", "-o", "main"]
    subprocess.run([*command, "-pthread"], cwd=folder, check=True, timeout=60)
    done = subprocess.run(["./main"], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    results = []
    for number, (entry, _) in enumerate(calls):
        s = next(s for s in built.signatures if s.graph == entry)
        results.append([
            np.fromfile(folder / f"out{number}_{a.name}", a.dtype.numpy).reshape(a.shape)
            for a in s.outputs
        ])  # fmt: skip
    return results
