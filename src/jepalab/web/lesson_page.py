"""Makes the lesson: its figures, its verdicts, and the page that stands alone.

python -m jepalab.web.lesson_page docs/lesson.html                        the page, from the stored data
python -m jepalab.web.lesson_page docs/lesson.html --results docs/results its figures anew, then the page
python -m jepalab.web.lesson_page docs/lesson.html --audit                its verdicts anew, then the page
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from jepalab.web.lesson import figures, verdicts
from jepalab.web.lesson.content import read_content
from jepalab.web.lesson.page import page_alone

USAGE = "usage: python -m jepalab.web.lesson_page PAGE.html [--results FOLDER] [--audit]"


def main(words: list[str]) -> int:
    """Makes what the words ask for; 2 where they ask for something else."""
    rest = list(words)
    audits = "--audit" in rest
    if audits:
        rest.remove("--audit")
    results = None
    if "--results" in rest[:-1]:
        place = rest.index("--results")
        results = Path(rest[place + 1])
        del rest[place : place + 2]
    if len(rest) != 1 or rest[0].startswith("-"):
        print(USAGE)
        return 2
    content = read_content()
    if results is not None:
        found = figures.make_figures(figures.find_placeholders(content.texts()), results)
        figures.FILE.write_text(as_json(found), encoding="utf-8")
        figures.read_figures.cache_clear()
    if audits:
        made = verdicts.make_verdicts(step.step for step in content.step)
        verdicts.FILE.write_text(as_json(made), encoding="utf-8")
        verdicts.read_verdicts.cache_clear()
    Path(rest[0]).write_text(page_alone(), encoding="utf-8")
    return 0


def as_json(value: Any) -> str:
    """The same bytes for the same value."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
