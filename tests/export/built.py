"""Runs what ``treadle.export.native`` builds, from C, for the tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

CC = shutil.which("cc")
NODE = shutil.which("node")
needs_cc = pytest.mark.skipif(CC is None, reason="there is no C compiler here")
needs_node = pytest.mark.skipif(NODE is None, reason="there is no Node here")

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


def run_built(built, calls, folder: Path, arena="NULL", threads="NULL", seed=None):
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
    if threads == "&own":
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


_NODE = """
const fs = require("fs");
const library = new WebAssembly.Module(fs.readFileSync("NAME.wasm"));
const net = new WebAssembly.Instance(library).exports;
let top = net.__heap_base.value;
function room(bytes) {
  const at = (top + 63) & ~63;
  top = at + bytes;
  const missing = top - net.memory.buffer.byteLength;
  if (missing > 0) net.memory.grow(Math.ceil(missing / 65536));
  return at;
}
function given(path) {
  const data = fs.readFileSync(path);
  const at = room(data.length);
  new Uint8Array(net.memory.buffer).set(data, at);
  return at;
}
const state = room(STATE), arena = room(ARENA);
const results = RESULTS.map(room);
const code = net.NAME_init(state) || net.NAME_ENTRY(state, arena, 0, INPUTS, ...results);
if (code) throw new Error("code " + code);
results.forEach((at, i) => fs.writeFileSync(
  "out" + i, new Uint8Array(net.memory.buffer).slice(at, at + RESULTS[i])));
"""


def run_wasm(built, entry, arrays, folder: Path):
    """The outputs of one call in Node."""
    (s,) = [s for s in built.signatures if s.graph == entry]
    (folder / f"{built.name}.wasm").write_bytes(built.module)
    for a in s.inputs:
        np.ascontiguousarray(arrays[a.told], a.dtype.numpy).tofile(folder / a.name)
    told = {
        "NAME": built.name, "ENTRY": s.name, "STATE": built.state, "ARENA": built.arena,
        "RESULTS": [a.nbytes for a in s.outputs],
        "INPUTS": ", ".join(f'given("{a.name}")' for a in s.inputs),
    }  # fmt: skip
    text = _NODE
    for word, value in told.items():
        text = text.replace(word, str(value))
    (folder / "main.js").write_text(text)
    done = subprocess.run(
        [NODE, "main.js"], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [
        np.fromfile(folder / f"out{i}", a.dtype.numpy).reshape(a.shape)
        for i, a in enumerate(s.outputs)
    ]
