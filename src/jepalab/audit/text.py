"""An audit in words, for a terminal: plain text, no colour, at most 110 columns.

Only ASCII is added to what the step itself calls its parts, so that any terminal can print it.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence

from jepalab.audit.report import Audit, Average, Confirmation, Finding, Place, Term
from jepalab.audit.wording import compared_in_words

__all__ = ["compared_in_words", "in_words", "side_by_side"]

WIDTH = 110
BAR = 40
GAP = "  "
NO_BREAK = "\u00a0"
SMALL_SHARE = 0.01  # a term below it is counted, not listed, where audits stand side by side
WEIGHTS = {"error": "ERROR", "warning": "Warning", "note": "Note"}
ANSWERS = {True: "agree", False: "CONTRADICT", None: "could not tell"}
ORDERS = {
    "after": "it moves after the optimizer's step",
    "before": "it moves before the optimizer's step",
    "never": "it never moved",
}


def in_words(audit: Audit) -> str:
    """The whole audit: verdict and reason first, the question last."""
    blocks = [_headline(audit), _paragraph(audit.why), _mixture(audit), _terms(audit)]
    blocks.append(_section("What else it could be called", (_named(t, t.ambiguous) for t in audit.terms)))
    guards = (_named(term, ", ".join(term.anti_collapse)) for term in audit.terms)
    blocks.append(_section("What keeps it from the constant solution", guards))
    blocks.append(_section("Slow copies", (_item(describe_average(average)) for average in audit.averages)))
    blocks.append(_section("Parameters", _parameters(audit)))
    blocks.append(_section("Findings", (_finding(finding) for finding in audit.findings)))
    blocks.append(_section("Confirmations", (_confirmation(each) for each in audit.confirmations)))
    blocks.append(_paragraph(audit.question))
    return _printable("\n\n".join(filter(None, blocks))) + "\n"


def side_by_side(audits: Sequence[Audit]) -> str:
    """Several audits as the rows of one table, a line for each term that drives the encoder."""
    rows: list[Sequence[str]] = []
    for audit in audits:
        if rows:
            rows.append(())
        listed = [term for term in by_share(audit.terms) if term.share >= SMALL_SHARE] or by_share(audit.terms)[:1]
        name, verdict = audit.title or "(no title)", audit.verdict
        for term in listed:
            op = f"{percent(term.share)} {term.op}" if len(audit.terms) > 1 else term.op
            rows.append((name, verdict, op, compared_in_words(term), novelty(term), str(term.target_learning)))
            name = verdict = ""
        if not listed:
            rows.append((name, verdict, "", "no term was found", "", ""))
        if num_left := len(audit.terms) - len(listed):
            rows.append(("", "", f"and {num_left} more", f"below {percent(SMALL_SHARE)} of the gradient", "", ""))
    head = ("step", "verdict", "loss", "what it compares", "novelty", "target net")
    return _printable(_table(head, rows, most=(16, 18, 16, 0, 7, 10), wide=3)) + "\n"


def by_share(terms: Iterable[Term]) -> list[Term]:
    """Largest share first; equal ones as the step has them."""
    return sorted(terms, key=lambda term: 0.0 if math.isnan(term.share) else -term.share)


def percent(share: float) -> str:
    """A share as whole per cent; one that would round to nothing, or to everything, is not shown as that.

    Where nothing reaches the encoder there are no shares (NaN).
    """
    if math.isnan(share):
        return "-"
    if 0 < share < 0.005:
        return "<1 %"
    if 0.995 <= share < 0.9995:
        return ">99 %"
    return f"{100 * share:.0f} %"


def novelty(term: Term) -> str:
    return "-" if term.novelty is None else f"{term.novelty:.2f}"


def change(term: Term) -> str:
    """The share in the first and in the last third of the steps."""
    return f"{percent(term.early).removesuffix(' %')} -> {percent(term.late)}"


def describe_place(place: Place, *, most: int = 36) -> str:
    """File and line, with as much of the path as there is room for."""
    text = str(place)
    return text if len(text) <= most else "..." + text[len(text) - most + 3 :]


def describe_average(average: Average) -> str:
    """One slow copy as a sentence."""
    if average.order == "never":
        return f"{average.copy}, a copy of {average.source}, never moved."
    order = ORDERS.get(average.order, average.order)
    fit = f"momentum {average.momentum:.6g}, residual of the fit {average.residual:.1e}"
    return f"{average.copy} follows {average.source}: {fit}; {order}."


def describe_steps(audit: Audit) -> str:
    """What the shares of this audit are shares of."""
    whose = audit.encoder if audit.encoder not in ("", "encoder") else "the encoder"
    steps = f", averaged over {audit.num_steps} step{'s' * (audit.num_steps != 1)}" if audit.num_steps else ""
    return f"Share: of the gradient that reaches {whose}{steps}."


def describe_unexplained(audit: Audit) -> str:
    """What no term accounts for, where that is enough to doubt the shares; else nothing."""
    if audit.unexplained < SMALL_SHARE:
        return ""
    part = percent(audit.unexplained)
    return f"{part} of the encoder's gradient is in no term that was found: read the shares with care."


def _printable(text: str) -> str:
    """Without what could move the cursor or colour the terminal: names come from somebody else's code."""
    text = text.replace(NO_BREAK, " ")
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width`; a number keeps its per cent sign."""
    return textwrap.wrap(text.replace(" %", f"{NO_BREAK}%"), width, break_on_hyphens=False)


def _headline(audit: Audit) -> str:
    rule = "=" * WIDTH
    title = _wrapped(audit.title or "Audit of one training step", WIDTH)
    verdict = _wrapped(audit.verdict, WIDTH - 13)
    lines = [("  VERDICT    " if not i else " " * 13) + line for i, line in enumerate(verdict)]
    return "\n".join([*title, rule, *lines, rule])


def _mixture(audit: Audit) -> str:
    if len(audit.mixture) < 2:
        return ""
    width = max(map(len, audit.mixture))
    ranked = sorted(audit.mixture.items(), key=lambda item: -item[1])
    bars = [(name, share, "#" * max(round(BAR * share), int(share > 0))) for name, share in ranked]
    return "\n".join(f"  {name:<{width}}  {bar:<{BAR}}  {percent(share):>5}" for name, share, bar in bars)


def _terms(audit: Audit) -> str:
    if not audit.terms:
        return "No term was found in this step."
    terms = by_share(audit.terms)
    what = [(percent(t.share), change(t), t.name, compared_in_words(t), t.label) for t in terms]
    how = [
        (
            t.name,
            str(t.space or "unknown"),
            str(t.process),
            str(t.target_learning),
            "yes" if t.stop_gradient else "no",
            novelty(t),
            _where(t),
        )
        for t in terms
    ]
    shares = ("share", "early, late", "term", "what it compares", "label")
    fields = ("term", "space", "process", "target net", "stop-grad", "novelty", "where")
    blocks = [
        _paragraph(describe_steps(audit)),
        _table(shares, what, most=(6, 12, 16, 0, 28), wide=3, right=(0,)),
        _paragraph(describe_unexplained(audit)),
        _table(fields, how, most=(14, 16, 15, 10, 9, 7, 0), wide=6),
    ]
    return "\n\n".join(filter(None, blocks))


def _where(term: Term) -> str:
    place = f"{term.op}, {describe_place(term.place, most=24)}"
    return f"{place}, from {describe_place(term.called_from, most=24)}" if term.called_from else place


def _named(term: Term, text: str) -> str:
    return _item(f"{term.name}: {text}") if text else ""


def _parameters(audit: Audit) -> Iterable[str]:
    counts = [f"{name} {count:,}" for name, count in audit.parameters.items()]
    return [_item(", ".join(counts))] if counts else []


def _finding(finding: Finding) -> str:
    weight = WEIGHTS.get(finding.weight, finding.weight)
    place = f" ({describe_place(finding.place, most=60)})" if finding.place else ""
    return _item(f"{finding.kind}: {finding.message.strip()}{place}", head=f"{weight:<9}")


def _confirmation(each: Confirmation) -> str:
    about = f" of {each.term}" if each.term else ""
    return _item(f"{each.test}{about}: {each.message}", head=f"{ANSWERS[each.agrees]:<16}")


def _section(title: str, items: Iterable[str]) -> str:
    lines = [item for item in items if item]
    return "\n".join([title, *lines]) if lines else ""


def _item(text: str, *, head: str = "") -> str:
    first = GAP + head
    rest = " " * len(first) if head else GAP * 2
    lines = _wrapped(text, WIDTH - len(rest))
    return "\n".join((rest if i else first) + line for i, line in enumerate(lines))


def _paragraph(text: str) -> str:
    return "\n".join(_wrapped(text, WIDTH))


def _table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, most: Sequence[int], wide: int, right: Sequence[int] = ()
) -> str:
    """Columns as wide as their longest cell, up to `most`; longer cells go on below. An empty row is a blank line.

    The column `wide` has what the others leave of the line instead of its own limit.
    """
    filled = [head, *filter(None, rows)]
    longest = [max(len(row[i]) for row in filled) for i in range(len(head))]
    widths = [min(length, limit) for length, limit in zip(longest, most, strict=True)]
    left = WIDTH - len(GAP) * len(widths) - sum(widths) + widths[wide]
    widths[wide] = min(longest[wide], left)
    rule = ["-" * width for width in widths]
    return "\n".join(_lines(row, widths, right) if row else "" for row in [head, rule, *rows])


def _lines(row: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> str:
    cells = [_wrapped(cell, width) or [""] for cell, width in zip(row, widths, strict=True)]
    lines = []
    for k in range(max(map(len, cells))):
        parts = [(cell[k] if k < len(cell) else "", width) for cell, width in zip(cells, widths, strict=True)]
        aligned = [f"{part:>{width}}" if i in right else f"{part:<{width}}" for i, (part, width) in enumerate(parts)]
        lines.append((GAP + GAP.join(aligned)).rstrip())
    return "\n".join(lines)
