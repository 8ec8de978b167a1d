"""The Makefile: which Python it takes, what it says where one is missing, what it repeats."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKE = shutil.which("make")
pytestmark = pytest.mark.skipif(MAKE is None, reason="needs make")

NO_VENV = """#!/bin/sh
case "$2" in
    *"import venv"*) exit 1 ;;
    *print*) echo python3.11 ;;
esac
"""
WORKS = """#!/bin/sh
echo "$@" >> "$LOG"
case "$*" in
    "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
esac
"""
TOO_OLD = "#!/bin/sh\nexit 1\n"


def _make(tmp_path: Path, *targets: str, **pythons: str) -> subprocess.CompletedProcess[str]:
    """Runs make where only the given Pythons and the plainest tools can be found."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    for name, text in pythons.items():
        python = folder / name.replace("_", ".")
        python.write_text(text)
        python.chmod(0o755)
    for tool in ("mkdir", "cp", "touch", "awk"):
        if not (folder / tool).exists():
            (folder / tool).symlink_to(shutil.which(tool))
    environment = {"PATH": str(folder), "LOG": str(tmp_path / "log")}
    return subprocess.run(
        [MAKE, "-C", str(ROOT), f"VENV={tmp_path / 'venv'}", *targets],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_venv_the_package_to_install_is_named(tmp_path):
    done = _make(tmp_path, "test", python3=NO_VENV)
    assert done.returncode != 0
    assert "cannot make environments: its module venv is missing" in done.stderr
    assert "sudo apt install python3.11-venv" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_without_a_new_enough_python(tmp_path):
    done = _make(tmp_path, "demo", python3=TOO_OLD)
    assert done.returncode != 0
    assert "Treadle needs Python 3.11 or newer and found none of: python3 " in done.stderr
    assert "sudo apt install python3 python3-venv" in done.stderr


def test_the_first_python_that_can_is_taken(tmp_path):
    done = _make(tmp_path, "check", python3=TOO_OLD, python3_13=NO_VENV, python3_12=WORKS)
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "log").read_text()
    assert f"-m venv {tmp_path}/venv\n" in log
    assert "--editable .[check]\n" in log
    assert "-m mypy" in log


def test_installs_once(tmp_path):
    for _ in range(2):
        assert _make(tmp_path, "check", python3=WORKS).returncode == 0
    log = (tmp_path / "log").read_text()
    assert log.count("-m venv ") == 1
    assert log.count("-m pip install") == 1
    assert log.count("-m ruff check") == 2


def test_a_failed_installation_is_tried_again(tmp_path):
    fails = WORKS + 'case "$*" in *"pip install"*) exit 3 ;; esac\n'
    assert _make(tmp_path, "check", python3=fails).returncode != 0
    (tmp_path / "venv" / "bin" / "python").write_text(WORKS)
    assert _make(tmp_path, "check", python3=WORKS).returncode == 0
    assert (tmp_path / "log").read_text().count("-m pip install") == 2


def test_help_lists_the_tasks(tmp_path):
    text = _make(tmp_path, "help").stdout
    for task in ("demo", "test", "check", "bench", "wheel", "doctor", "clean"):
        assert f"make {task}" in text


def test_continuous_integration_runs_the_tests():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith("exec make test")
