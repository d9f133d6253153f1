"""Modules of the page as one script: what a module imports stands before it, and imports and exports are taken out.

It understands what these modules use: `import { a, b } from "./c.js";` on one line, and `export` before a declaration.
"""

from __future__ import annotations

import re
from pathlib import Path

IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([\w.]+)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|let|class)\b)", re.MULTILINE)
DECLARED = re.compile(r"^(?:async )?(?:function|const|let|class) +(\w+)", re.MULTILINE)


def bundle(folder: Path, name: str) -> str:
    """The module and all that it imports, as the text of one module script.

    Raises:
        ValueError: a module imports in another way, or two modules declare one name.
    """
    texts: dict[str, str] = {}
    _collect(folder, name, texts)
    declared: dict[str, str] = {}
    for module, text in texts.items():
        for each in DECLARED.findall(text):
            if each in declared:
                raise ValueError(f"{each} is declared in {declared[each]} and in {module}; a bundle needs two names.")
            declared[each] = module
    return "\n".join(texts.values())


def _collect(folder: Path, name: str, texts: dict[str, str]) -> None:
    if name in texts:
        return
    source = (folder / name).read_text(encoding="utf-8")
    for words, imported in IMPORT.findall(source):
        if " as " in words:
            raise ValueError(f"{name} renames what it imports from {imported}; a bundle cannot.")
        _collect(folder, imported, texts)
    text = EXPORT.sub("", IMPORT.sub("", source))
    if left := re.search(r"^(import|export)\b.*", text, re.MULTILINE):
        raise ValueError(f"{name} has a line that a bundle cannot take apart: {left[0][:80]}")
    texts[name] = text
