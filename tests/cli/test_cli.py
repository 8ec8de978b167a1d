"""The ``treadle`` command from outside, as a person types it."""

import os
import re
import subprocess
import sys
from importlib.metadata import version

from typer.testing import CliRunner

from treadle.cli.main import app


def _treadle(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "treadle", *arguments],
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_version():
    done = _treadle("--version")
    assert (done.returncode, done.stdout) == (0, f"treadle {version('treadle')}\n")


def test_help_names_the_tasks_and_loads_nothing_heavy():
    code = (
        "import sys; from treadle.cli.main import app; app(['--help'], standalone_mode=False);"
        "print(sorted({'llvmlite', 'matplotlib', 'tensorboard'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "demo" in done.stdout
    assert "doctor" in done.stdout
    assert done.stdout.rstrip().endswith("[]")


def test_no_task_shows_the_help():
    assert "Usage" in _treadle().stdout


def test_unknown_task():
    done = _treadle("dmeo")
    assert done.returncode == 2
    assert "No such command 'dmeo'" in done.stderr


def test_demo_checks_its_numbers():
    result = CliRunner().invoke(app, ["demo", "--epochs", "0"])
    assert result.exit_code == 2


def test_doctor_reports_and_runs_a_kernel(tmp_path):
    done = _treadle("doctor", TREADLE_CACHE_DIR=str(tmp_path / "cache"), TREADLE_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    for line in (
        f"treadle {version('treadle')}",
        f"numpy {version('numpy')}",
        f"llvmlite {version('llvmlite')}",
        "threads for kernels: 1",
        str(tmp_path / "cache"),
        "0 kernels, 0.0 MB of at most 1024 MB",
        "TREADLE_NUM_THREADS=1",
        "x * 2 over 1,048,576 float32 is right: compiled in",
    ):
        assert line in done.stdout


def test_doctor_names_what_is_missing(monkeypatch):
    from treadle.cli import doctor

    def installed(package: str) -> str | None:
        return None if package in ("matplotlib", "rich") else "9.9"

    monkeypatch.setattr(doctor, "_installed", installed)
    lines = [*doctor.versions(), *doctor.extras()]
    assert "rich MISSING: reinstall treadle" in lines
    assert "plot: missing matplotlib; pip install 'treadle[plot]'" in lines
    assert "check: mypy 9.9, ruff 9.9" in lines


STEP = """
import treadle
calls = 0
def step():
    global calls
    calls += 1
    return (treadle.ones(64, 8) @ treadle.ones(8, 3)).sum().item()
constant = 3
"""


def test_cache_is_warmed_listed_and_cleared(tmp_path):
    (tmp_path / "my_train.py").write_text(STEP)
    environment = {"TREADLE_CACHE_DIR": str(tmp_path / "cache")}
    name = f"{tmp_path / 'my_train.py'}:step"
    done = _treadle("cache", "list", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("0 kernels, 0.0 MB of at most 1024 MB, in ")
    done = _treadle("cache", "warm", name, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"\d+ kernels compiled in \d+ s, 0 were there already\n", done.stdout)
    done = _treadle("cache", "warm", name, **environment)
    assert done.stdout.startswith("0 kernels compiled in ")
    done = _treadle("cache", "list", **environment)
    assert "gemm" in done.stdout
    assert "just now" in done.stdout
    done = _treadle("cache", "clear", **environment)
    assert re.match(r"\d+ kernels removed from ", done.stdout)
    assert not list((tmp_path / "cache" / "kernels").iterdir())


def test_cache_says_what_cannot_be_warmed(tmp_path):
    (tmp_path / "my_train.py").write_text(STEP)
    for name, reason in {
        "everything": "expected demo, ops, or a function without arguments as FILE.py:FUNCTION",
        f"{tmp_path / 'my_train.py'}:steps": "there is no function 'steps' in",
        f"{tmp_path / 'my_train.py'}:constant": "there is no function 'constant' in",
        "no_such_module:step": "No module named 'no_such_module'",
        f"{tmp_path / 'absent.py'}:step": "No such file",
    }.items():
        done = _treadle("cache", "warm", name, TREADLE_CACHE_DIR=str(tmp_path / "cache"))
        assert done.returncode == 2
        assert f"Error: cannot warm {name}: " in done.stderr
        assert reason in done.stderr
    done = _treadle("cache", "warm", TREADLE_CACHE_LIMIT_MB="0")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the kernel cache is off (TREADLE_CACHE_LIMIT_MB is 0)" in done.stderr
