"""The process that does the pages' work: a line of JSON in, lines of JSON out. `python -m jepalab.web.worker`."""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Any

from jepalab.web.tasks import Tell, known_tasks


def main() -> int:
    """Works until standard input ends. What tasks print goes to standard error."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    for line in sys.stdin:
        asked = json.loads(line)

        def say(event: str, value: Any, job: str = asked["job"]) -> None:
            lines.write(json.dumps({"job": job, "event": event, "value": _finite(value)}) + "\n")
            lines.flush()

        try:
            say("done", work(asked, partial(say, "progress")))
        except (Exception, SystemExit) as problem:  # noqa: BLE001 - the page gets a sentence, whatever it was
            traceback.print_exc(file=sys.stderr)
            say("failed", " ".join(str(problem).split())[:2_000] or type(problem).__name__)
    return 0


def work(asked: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """One task's answer. ValueError for a task or an argument that there is not."""
    if asked["task"] not in known_tasks():
        raise ValueError(f"There is no task {asked['task']!r}.")
    task = importlib.import_module(f"jepalab.web.tasks.{asked['task']}")
    return task.run(asked["arguments"], root=Path(asked["root"]), allow_code=asked["allow_code"], tell=tell)


def _finite(value: Any) -> Any:
    """The same with None for numbers that are not finite, which are not JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


if __name__ == "__main__":
    sys.exit(main())
