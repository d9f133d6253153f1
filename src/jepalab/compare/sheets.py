"""What a report is made of: figures and tables, each with its numbers as CSV."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

Entry = str | int | float | None


@dataclass(frozen=True)
class Sheet:
    """Numbers for other programs: full precision, one header line, an empty field where there is no value."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Entry]]

    @property
    def csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([self.columns, *self.rows])
        return text.getvalue()

    @property
    def link(self) -> str:
        return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(self.csv.encode()).decode()}"

    @property
    def file(self) -> str:
        return f"{slug(self.name)}.csv"


@dataclass(frozen=True)
class Figure:
    """One or more panels (markup that is safe already), what is seen in them in words, and the numbers."""

    title: str
    panels: Sequence[str]
    caption: str
    sheet: Sheet
    subtitle: str = ""


@dataclass(frozen=True)
class Badge:
    """A table's entry that stands out by colour (a CSS class), symbol and word, with a remark below it."""

    style: str
    symbol: str
    word: str
    remark: str = ""


@dataclass(frozen=True)
class Table:
    """Rows as they are printed; the first `num_names` columns are words, the others numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Badge]]
    sheet: Sheet
    note: str = ""
    num_names: int = 1


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it; the folded figures open on a click, and in print."""

    title: str
    text: str = ""
    figures: Sequence[Figure] = ()
    folded: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    style: str = ""

    @property
    def anchor(self) -> str:
        return slug(self.title)


def slug(text: str) -> str:
    """The text as part of an address or a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"
