"""The README tells the truth: its example runs, its tables match, its links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from analyzer.methods import METHODS


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


def blocks(readme: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)


def test_the_example_runs_as_printed(readme: str, root: Path, tmp_path: Path) -> None:
    (example,) = blocks(readme, "python")
    assert len(example.splitlines()) <= 12
    script = f"import sys\nsys.path.insert(0, {str(root)!r})\n{example}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = {path.name for path in tmp_path.iterdir()}
    assert written == set(re.findall(r'"([\w.]+\.(?:png|npz|onnx))"', strip_comments(example)))


def strip_comments(code: str) -> str:
    return re.sub(r"#.*", "", code)


def test_the_method_table_is_the_package_s(readme: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \|$", readme, re.MULTILINE)
    assert rows == [
        (name, method.title, method.summary, "signed" if method.signed else "one channel")
        for name, method in METHODS.items()
    ]


def test_there_are_exactly_two_commands_to_set_up(readme: str) -> None:
    (commands,) = blocks(readme, "bash")
    assert commands.splitlines() == [
        "pip install . && onnx-analyzer demo",
        "pip install '.[test]' && pytest",
    ]


def test_every_link_into_the_repository_leads_somewhere(readme: str, root: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", readme) if "://" not in link]
    assert links
    assert [link for link in links if not (root / link).exists()] == []


def test_the_picture_is_small_enough_to_load(root: Path) -> None:
    assert (root / "docs" / "chelsea_tiger_cat.png").stat().st_size < 300 * 1024


def test_every_option_that_the_readme_names_exists(readme: str) -> None:
    from analyzer.cli import VERBS, cli

    known = set()
    for verb in VERBS:
        command = cli.get_command(None, verb)  # type: ignore[arg-type]
        known |= {option for parameter in command.params for option in parameter.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", readme)) <= known
