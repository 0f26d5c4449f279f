"""Tables in Markdown."""

from __future__ import annotations


def line(*cells: object) -> str:
    """One row of a table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def rule(figures: int, words: int = 1) -> str:
    """The row below the heads: columns of words, then columns of figures."""
    return "|" + " --- |" * words + " ---: |" * figures
