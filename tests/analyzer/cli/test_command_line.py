"""The skin itself: instant help, lazy verbs, exit codes, one line for every failure."""

import importlib.metadata
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from analyzer.cli import VERBS, VerbGroup
from analyzer.cli.exit_codes import ExitCode
from analyzer.cli.failures import Run, report
from analyzer.errors import AnalyzerError, ExplanationWarning, ModelRejectedError
from tests.analyzer.cli.conftest import Answer

Call = Callable[..., Answer]
HEAVY = {"numpy", "onnx", "onnxruntime", "onnx_graphsurgeon", "PIL", "cv2", "graph_rewrites"}
START = "from analyzer.cli import main; main()"


def python(root: Path, code: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter in the checkout."""
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def test_help_is_instant(root: Path) -> None:
    """Processor time where the system tells it: what else runs on the machine does not count."""
    seconds = []
    for _ in range(5):
        start = (time.perf_counter(), os.times())
        assert python(root, START, "--help").returncode == 0
        elapsed, before, now = time.perf_counter() - start[0], start[1], os.times()
        spent = now.children_user + now.children_system
        spent -= before.children_user + before.children_system
        seconds.append(spent or elapsed)
    assert min(seconds) <= 0.2, seconds


@pytest.mark.parametrize("args", [["--help"], *([verb, "--help"] for verb in VERBS)])
def test_help_imports_nothing_heavy(root: Path, args: list[str]) -> None:
    code = f"""
import sys
from analyzer.cli import cli
assert cli.main({args!r}, standalone_mode=False) == 0
print(*sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)
"""
    done = python(root, code)
    assert done.returncode == 0, done.stderr
    assert done.stderr.split() == []


def test_help_lists_every_verb_and_loads_none(call: Call) -> None:
    answer = call("--help")
    assert answer.code == 0
    assert all(verb in answer.out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_that_names_its_options(call: Call, verb: str) -> None:
    answer = call(verb, "--help")
    assert answer.code == 0
    assert "--format" in answer.out
    assert "--debug" in answer.out


def test_no_arguments_show_the_help_and_are_a_usage_error(call: Call) -> None:
    answer = call()
    assert answer.code == ExitCode.USAGE
    assert "Usage: onnx-analyzer" in answer.err


def test_a_misspelt_verb_names_the_nearest(call: Call) -> None:
    answer = call("explian")
    assert answer.is_one_error(ExitCode.USAGE)
    assert "'explain'" in answer.err


@pytest.mark.parametrize("args", [["explain"], ["inspect", "--nope"], ["demo", "extra"]])
def test_wrong_usage_is_one_line_that_points_to_the_help(call: Call, args: list[str]) -> None:
    answer = call(*args)
    assert answer.is_one_error(ExitCode.USAGE)
    assert f"'onnx-analyzer {args[0]} --help'" in answer.err


def test_the_version_is_the_distribution_s(call: Call) -> None:
    try:
        version = importlib.metadata.version("onnx-analyzer")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("onnx-analyzer is not installed here, only on the path")
    assert call("--version").out == f"onnx-analyzer {version}\n"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.Abort(), 130, "interrupted"),
        (click.UsageError("no such thing"), 2, "no such thing"),
        (ModelRejectedError("bad model"), 4, "bad model"),
        (ModuleNotFoundError("No module named 'jinja2'"), 6, "doctor"),
        (ImportError("libGL.so.1: cannot open shared object file"), 6, "libGL.so.1"),
        (ImportError("cannot import name", name="analyzer.model"), 70, "cannot import name"),
        (MemoryError(), 6, "memory"),
        (PermissionError(13, "Permission denied", "x"), 6, "Permission denied"),
        (AnalyzerError("the runtime failed"), 70, "the runtime failed"),
        (ZeroDivisionError("division by zero"), 70, "ZeroDivisionError: division by zero"),
        (KeyError(), 70, "KeyError"),
    ],
)
def test_every_failure_is_one_line_and_a_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, words: str
) -> None:
    assert report(error, Run()) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    assert words in line


def broken_group(fail: Callable[[], None]) -> click.Group:
    """The command line with one verb whose body is `fail`."""

    class Broken(VerbGroup):
        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            from analyzer.cli import options

            return options.debug(click.command("demo")(fail))

    return Broken("onnx-analyzer")


def our_bug() -> None:
    raise LookupError("two\nlines \x1b[31mof colour")


def test_our_bug_is_one_line_that_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert broken_group(our_bug).main(["demo"], standalone_mode=False) == ExitCode.BUG
    (line,) = capsys.readouterr().err.splitlines()
    assert "test_command_line.py:" in line
    assert "LookupError: two lines of colour" in line


def interrupt() -> None:
    raise KeyboardInterrupt


def test_an_interrupt_is_one_line_and_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert broken_group(interrupt).main(["demo"], standalone_mode=False) == ExitCode.INTERRUPTED
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.strip().startswith("error: interrupted")


def test_a_reader_that_has_gone_away_is_no_error(root: Path) -> None:
    code = """
import sys, click
from analyzer.cli import VerbGroup
@click.command()
def command():
    for _ in range(100_000):
        click.echo("x" * 80)
group = VerbGroup("onnx-analyzer")
group.get_command = lambda ctx, name: command
group.main(["demo"])
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == ExitCode.OK


def test_debug_adds_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert broken_group(our_bug).main(["demo", "--debug"], standalone_mode=False) == ExitCode.BUG
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: ")


def test_our_warnings_are_talk_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    import warnings

    from graph_rewrites.scores import AmbiguousScoresWarning

    def warn() -> None:
        for _ in range(2):
            warnings.warn("look twice", ExplanationWarning, stacklevel=1)
            warnings.warn("no score", AmbiguousScoresWarning, stacklevel=1)
        warnings.warn("a library's", DeprecationWarning, stacklevel=1)

    assert broken_group(warn).main(["demo"], standalone_mode=False) == ExitCode.OK
    captured = capsys.readouterr()
    assert captured.err == "warning: look twice\nwarning: no score\n"
    assert captured.out == ""


def test_the_codes_are_the_published_ones(root: Path) -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0,
        "FINDINGS": 1,
        "USAGE": 2,
        "FAILED_IMAGES": 3,
        "MODEL_REJECTED": 4,
        "NOTHING_TO_DO": 5,
        "ENVIRONMENT": 6,
        "BUG": 70,
        "INTERRUPTED": 130,
    }
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert all(f"| {int(code)} |" in readme for code in ExitCode)
