"""Names from strangers' files cannot drive the terminal or break a message into lines."""

import io
import json
import sys

import pytest

from analyzer.cli.terminal import colors_wanted, printable, progress, put_json, put_table


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("tiger cat · Kätzchen · 猫", "tiger cat · Kätzchen · 猫"),
        ("a\nb\r\n\tc", "a b c"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("\x1b]0;new title\x07name", "name"),
        ("\x1b]8;;http://example.com\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bcreset", "reset"),
        ("never ended \x1b]0;title", "never ended"),
        ("cat\x08\x08\x08dog\x00", "catdog"),
        ("abc\u202edcba\u2066", "abcdcba"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_table_aligns_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    put_table([("\x1b[1ma", 1), ("long", 22)])
    assert capsys.readouterr().out == "  a     1\n  long  22\n"


def test_json_carries_no_escape(capsys: pytest.CaptureFixture[str]) -> None:
    put_json({"name": "\x1b[31m\x9b\u202e"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x1b" not in out
    assert json.loads(out) == {"name": "\x1b[31m\x9b\u202e"}


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_color_is_heard(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert colors_wanted() is None
    monkeypatch.setenv(name, value)
    assert colors_wanted() is False


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("items", "stderr", "stdout", "shown"),
    [
        (3, Terminal, io.StringIO, True),
        (3, io.StringIO, io.StringIO, False),
        (1, Terminal, io.StringIO, False),
        (3, Terminal, Terminal, False),
    ],
    ids=["terminal", "no terminal", "one item", "results show it"],
)
def test_progress_is_for_people_who_wait(
    monkeypatch: pytest.MonkeyPatch,
    items: int,
    stderr: type[io.StringIO],
    stdout: type[io.StringIO],
    shown: bool,
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr())
    monkeypatch.setattr(sys, "stdout", stdout())
    with progress(range(items), "explaining", streamed=True) as bar:
        assert list(bar) == list(range(items))
    assert ("explaining" in sys.stderr.getvalue()) == shown
    assert sys.stdout.getvalue() == ""
