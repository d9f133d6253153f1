"""The four classic examples as a lesson: for a terminal, and as a section of the page "What does your loss compare?".

`python -m jepalab.audit.lesson docs/audit.md` runs them and writes that section anew.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from jepalab.audit.examples import Example, audit_examples, examples
from jepalab.audit.report import Audit
from jepalab.audit.text import WIDTH, in_words, side_by_side

BEGIN, END = "<!-- examples:begin -->", "<!-- examples:end -->"
HEAD = ("example", "verdict", "label", "space", "process", "target learning", "novelty")
IN_FULL = "masked picture"  # the example whose whole report the page shows


def lesson(audits: Sequence[Audit]) -> str:
    """What each example hides, compares and rewards, then all of them side by side."""
    blocks = [_described(example) for example in examples()]
    return "\n\n".join([*blocks, side_by_side(audits).rstrip(), audits[0].question]) + "\n"


def rows(audits: Iterable[Audit]) -> list[tuple[str, ...]]:
    """A row of the page's table for each term."""
    return [
        (
            audit.title,
            audit.verdict,
            term.label,
            str(term.space),
            str(term.process),
            str(term.target_learning),
            "-" if term.novelty is None else f"{term.novelty:.2f}",
        )
        for audit in audits
        for term in audit.terms
    ]


def page_section(audits: Sequence[Audit]) -> str:
    """The lesson in Markdown: the fields as a table, the terminal's output, and one report in full."""
    table = [_line(HEAD), _line(["---"] * len(HEAD)), *map(_line, rows(audits))]
    full = next(audit for audit in audits if audit.title == IN_FULL)
    return "\n".join(
        [
            *table,
            "",
            "What `jepalab audit --examples` prints:",
            "",
            _fenced(lesson(audits)),
            "",
            f"And the whole report of one of them, {IN_FULL}:",
            "",
            _fenced(in_words(full)),
        ]
    )


def write_page_section(path: Path) -> None:
    """Audits the examples and puts the result between the two marks of a page; the rest of the page stays as it is."""
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"Wanted a page with one line {BEGIN} and one line {END} after it, got {path} without them.")
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    path.write_text(f"{before}{BEGIN}\n\n{page_section(audit_examples())}\n\n{after}", encoding="utf-8")


def _described(example: Example) -> str:
    parts = (("guesses", example.hidden), ("loss", example.loss), ("rewards", example.rewards))
    lines = [
        textwrap.fill(text, WIDTH, initial_indent=f"  {word:<8} ", subsequent_indent=" " * 11) for word, text in parts
    ]
    return "\n".join([example.name, *lines])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _fenced(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m jepalab.audit.lesson PAGE.md")
    write_page_section(Path(sys.argv[1]))
