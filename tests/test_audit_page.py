"""What the audit prints and draws: every fact is there, nothing overlaps, nothing foreign gets in as markup."""

from __future__ import annotations

import html
import itertools
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepalab.audit.page import render, write_page
from jepalab.audit.picture import draw
from jepalab.audit.report import (
    Arrow,
    Audit,
    Average,
    Box,
    Confirmation,
    Drawing,
    Family,
    Finding,
    Place,
    Process,
    Side,
    Space,
    TargetLearning,
    Term,
)
from jepalab.audit.text import compared_in_words, in_words, percent, side_by_side
from test_report_browser import CHROMIUM, browse


def side(*roots: str, stage: str = "raw", entry: str = "none", gradient: bool = False, discrete: bool = False) -> Side:
    return Side(roots, stage, entry, gradient, discrete)


PREDICTION = side("x", stage="online", entry="raw", gradient=True)
PIXELS = Term(
    name="pixels",
    op="mse_loss",
    place=Place("mae.py", 88, "forward_loss", "loss = F.mse_loss(prediction, target)"),
    called_from=None,
    prediction=PREDICTION,
    target=side("x"),
    space=Space.INPUT,
    process=Process.REGRESS,
    target_learning=TargetLearning.NONE,
    stop_gradient=False,
    novelty=1.0,
    share=1.0,
    early=1.0,
    late=1.0,
    family=Family.GENERATIVE,
    label="GENERATIVE-INPUT",
)
LATENT = replace(
    PIXELS,
    name="latent",
    op="smooth_l1_loss",
    place=Place("src/ijepa/train.py", 412, "loss_fn", "loss = F.smooth_l1_loss(z, h)"),
    called_from=Place("src/ijepa/train.py", 431, "train_step", "loss = loss_fn(z, h)"),
    target=side("x", stage="ema", entry="raw"),
    space=Space.EMA_EMBEDDING,
    target_learning=TargetLearning.EMA,
    stop_gradient=True,
    novelty=0.5,
    family=Family.JEPA,
    label="EMBEDDING-PREDICTION (EMA)",
)


def ijepa() -> Audit:
    boxes = (
        Box("x", "x", "input", "4 x 3 x 224 x 224"),
        Box("keep", "gather", "operation", "context tokens"),
        Box("encoder", "VisionTransformer", "online", "encoder, 5,524,416"),
        Box("predictor", "Predictor", "online", "predictor, 1,200,000"),
        Box("positions", "positions", "constant"),
        Box("teacher", "VisionTransformer", "ema", "momentum 0.996"),
        Box("pick", "layer_norm, gather", "operation", "target tokens"),
        Box("latent", "smooth_l1_loss", "comparison", "train.py:412"),
        Box("loss", "loss", "loss"),
    )
    arrows = (
        Arrow("x", "keep"),
        Arrow("keep", "encoder"),
        Arrow("encoder", "predictor"),
        Arrow("positions", "predictor"),
        Arrow("predictor", "latent", share=1.0),
        Arrow("x", "teacher"),
        Arrow("teacher", "pick", stopped=True),
        Arrow("pick", "latent", stopped=True),
        Arrow("latent", "loss", share=1.0),
    )
    return Audit(
        verdict="JEPA-style",
        mixture={"JEPA-style": 1.0},
        why="The encoder learns to predict the embedding of patches it has not seen. The target is made by a slow copy "
        "of itself, so nothing asks for the pixels.",
        terms=(LATENT,),
        averages=(Average("target_encoder", "encoder", 0.996, 3.1e-7, "after"),),
        confirmations=(
            Confirmation(
                "footprint", "latent", True, "6 of 12 perturbed patches change the target and not the prediction."
            ),
            Confirmation(
                "constant encoder", "latent", None, "The loss falls, but the slow copy cannot be held constant."
            ),
        ),
        parameters={"online": 6_724_416, "ema": 5_524_416, "frozen": 75_264},
        encoder="encoder",
        num_steps=10,
        drawing=Drawing(boxes, arrows),
        title="I-JEPA",
    )


def mae() -> Audit:
    boxes = (
        Box("x", "x", "input", "8 x 3 x 224 x 224"),
        Box("mask", "random mask", "noise"),
        Box("patches", "patchify", "operation"),
        Box("encoder", "ViTMAEModel", "online", "85,798,656"),
        Box("decoder", "ViTMAEDecoder", "online", "26,007,808"),
        Box("pixels", "mse_loss", "comparison", "mae.py:88"),
        Box("loss", "loss", "loss"),
    )
    pairs = [("x", "encoder"), ("mask", "encoder"), ("encoder", "decoder"), ("x", "patches"), ("patches", "pixels")]
    arrows = [Arrow(*pair) for pair in pairs] + [
        Arrow("decoder", "pixels", share=1.0),
        Arrow("pixels", "loss", share=1.0),
    ]
    return Audit(
        verdict="generative",
        mixture={"generative": 1.0},
        why="The step predicts patches of the input that were hidden from the encoder. What it is held against is the "
        "input itself, pixel by pixel.",
        terms=(PIXELS,),
        parameters={"online": 111_806_464},
        encoder="vit",
        num_steps=10,
        drawing=Drawing(boxes, tuple(arrows)),
        title="ViTMAE (transformers)",
    )


def dreamer() -> Audit:
    reward = replace(
        PIXELS,
        name="reward",
        op="cross_entropy",
        place=Place("dreamer.py", 190, "loss", "F.cross_entropy(logits, twohot)"),
        target=side("reward"),
        space=Space.REWARD,
        process=Process.CLASSIFY_TOKEN,
        share=0.31,
        early=0.44,
        late=0.22,
        family=Family.SUPERVISED,
        label="REWARD",
    )
    latent = replace(
        LATENT,
        name="dynamics",
        op="kl_divergence",
        place=Place("dreamer.py", 201, "loss", "kl_divergence(post, prior)"),
        called_from=None,
        target=side("x_next", stage="online", entry="raw"),
        space=Space.OWN_EMBEDDING,
        target_learning=TargetLearning.JOINT,
        novelty=1.0,
        share=0.066,
        early=0.02,
        late=0.09,
        label="EMBEDDING-PREDICTION (self)",
        anti_collapse=("stop-gradient", "reconstruction"),
    )
    back = replace(latent, name="representation", share=0.004, early=0.001, late=0.006, family=Family.REGULARISER)
    pixels = replace(PIXELS, share=0.62, early=0.54, late=0.68, place=Place("dreamer.py", 177, "loss", "(x - p) ** 2"))
    boxes = (
        Box("x", "x", "input", "16 x 64 x 3 x 64 x 64"),
        Box("action", "action", "input"),
        Box("reward_in", "reward", "input"),
        Box("encoder", "ConvEncoder", "online", "1.2 M"),
        Box("rssm", "RSSM", "online", "posterior"),
        Box("prior", "RSSM prior", "online", "from h alone"),
        Box("sample", "one_hot sample", "noise"),
        Box("z", "straight-through", "operation"),
        Box("decoder", "ConvDecoder", "online"),
        Box("head", "RewardHead", "online"),
        Box("twohot", "two-hot of symlog", "operation"),
        Box("pixels", "mse_loss", "comparison", "dreamer.py:177"),
        Box("reward", "cross_entropy", "comparison", "dreamer.py:190"),
        Box("dynamics", "KL(sg q, p)", "comparison", "dreamer.py:201"),
        Box("representation", "KL(q, sg p)", "comparison", "dreamer.py:202"),
        Box("loss", "loss", "loss"),
    )
    arrows = (
        Arrow("x", "encoder"),
        Arrow("encoder", "rssm"),
        Arrow("action", "rssm"),
        Arrow("action", "prior"),
        Arrow("rssm", "z"),
        Arrow("sample", "z"),
        Arrow("z", "decoder"),
        Arrow("z", "head"),
        Arrow("decoder", "pixels", share=0.62),
        Arrow("x", "pixels"),
        Arrow("head", "reward", share=0.31),
        Arrow("reward_in", "twohot"),
        Arrow("twohot", "reward"),
        Arrow("rssm", "dynamics", stopped=True),
        Arrow("prior", "dynamics", share=0.066),
        Arrow("rssm", "representation", share=0.004),
        Arrow("prior", "representation", stopped=True),
        Arrow("pixels", "loss", share=0.62),
        Arrow("reward", "loss", share=0.31),
        Arrow("dynamics", "loss", share=0.066),
        Arrow("representation", "loss", share=0.004),
    )
    return Audit(
        verdict="mixed (generative 62 %, supervised 31 %, JEPA-style 7 %)",
        mixture={"generative": 0.62, "supervised": 0.31, "JEPA-style": 0.07},
        why="Most of what the encoder learns comes from drawing the frame again, and a third from the reward. "
        "Predicting its own next embedding moves it little.",
        terms=(pixels, reward, latent, back),
        findings=(
            Finding("small-term", "note", "representation gives the encoder less than 1 % of its gradient."),
            Finding(
                "privileged",
                "warning",
                "reward reaches the encoder's gradient: features depend on the task.",
                reward.place,
            ),
        ),
        confirmations=(Confirmation("target shuffle", "pixels", True, "The loss rises from 0.91 to 1.84."),),
        parameters={"online": 12_431_872, "idle": 512},
        encoder="encoder",
        num_steps=10,
        drawing=Drawing(boxes, arrows),
        title="Dreamer-like world model",
    )


def collapsing() -> Audit:
    place = Place(
        "/somewhere/very/deep/inside/a/repository/of/somebody/else/naive_latent_prediction.py", 1042, "f", "..."
    )
    term = replace(
        LATENT,
        name="loss",
        op="mse_loss",
        place=place,
        called_from=None,
        target=side("x_next", stage="online", entry="raw", gradient=True),
        space=Space.OWN_EMBEDDING,
        target_learning=TargetLearning.JOINT,
        stop_gradient=False,
        novelty=1.0,
        label="COLLAPSE-PRONE",
        ambiguous="With a stop-gradient on the target this would be EMBEDDING-PREDICTION (self); `stop_gradient` tells "
        "the two apart.",
    )
    boxes = (
        Box("x", "x", "input"),
        Box("next", "x_next", "input"),
        Box("encoder", "Encoder", "online", "shared"),
        Box("backbone", "DINOv2", "frozen", "21.6 M"),
        Box("head", "Adapter on frozen", "mixed"),
        Box("predictor", "MLP", "online"),
        Box("loss_op", "mse_loss", "comparison", "naive.py:1042"),
        Box("loss", "loss", "loss"),
    )
    pairs = ("x backbone", "next backbone", "backbone head", "head encoder", "encoder predictor", "predictor loss_op")
    arrows = [Arrow(*pair.split()) for pair in pairs]
    arrows += [Arrow("encoder", "loss_op", share=0.48), Arrow("loss_op", "loss", share=1.0)]
    return Audit(
        verdict="collapse-prone",
        mixture={"JEPA-style": 1.0},
        why="Both sides of the loss are learned and nothing stands against the constant. The easiest answer is an "
        "embedding that is the same for every input.",
        terms=(term,),
        findings=(
            Finding(
                "collapse", "error", "The target has a gradient and no term keeps the embeddings apart. " * 3, place
            ),
            Finding(
                "ema-order", "warning", "target_encoder moves before the optimizer's step, so it lags by one step."
            ),
        ),
        averages=(
            Average("target_encoder", "encoder", 0.99, 2e-3, "before"),
            Average("old_encoder", "encoder", 1.0, 0.0, "never"),
        ),
        confirmations=(
            Confirmation("constant encoder", "loss", False, "The loss does not reach its minimum, as it should."),
        ),
        parameters={"online": 1000, "frozen": 21_600_000},
        num_steps=1,
        unexplained=0.031,
        drawing=Drawing(boxes, tuple(arrows)),
        title='Naïve <latent> prediction & "friends"',
    )


def vae() -> Audit:
    kl = replace(
        PIXELS,
        name="kl",
        op="mean",
        target=None,
        space=Space.STATISTIC,
        process=Process.MATCH_STATISTIC,
        novelty=None,
        share=0.03,
        family=Family.REGULARISER,
        label="REGULARISER",
    )
    boxes = (
        Box("x", "x", "input", "128 x 784"),
        Box("eps", "randn_like", "noise"),
        Box("encoder", "Encoder", "online", "mu, log variance"),
        Box("z", "add", "operation", "mu + eps * sigma"),
        Box("decoder", "Decoder", "online"),
        Box("pixels", "mse_loss", "comparison", "vae.py:31"),
        Box("kl", "mean", "statistic", "vae.py:32"),
        Box("loss", "loss", "loss"),
    )
    pairs = ("x encoder", "encoder z", "eps z", "z decoder", "x pixels", "encoder kl")
    arrows = [Arrow(*pair.split()) for pair in pairs]
    arrows += [
        Arrow("decoder", "pixels", share=0.97),
        Arrow("pixels", "loss", share=0.97),
        Arrow("kl", "loss", share=0.03),
    ]
    return Audit(
        verdict="generative",
        mixture={"generative": 1.0},
        why="The step draws again the input it was given. A second term keeps the embedding near a fixed distribution.",
        terms=(replace(PIXELS, novelty=0.0, share=0.97), kl),
        parameters={"online": 650_000},
        encoder="encoder",
        num_steps=10,
        drawing=Drawing(boxes, tuple(arrows)),
        title="VAE",
    )


AUDITS = {audit.title: audit for audit in (ijepa(), mae(), dreamer(), collapsing(), vae())}
EMPTY = Audit(verdict="unsupported", mixture={}, why="The loss came out of a custom function.", terms=())
PLACES = [pytest.param(audit, id=title.split()[0]) for title, audit in AUDITS.items()]
HOSTILE = "<script>alert('x')</script> & \"quoted\" \x1b[31m ]]>"


def columns(text: str) -> list[dict[str, str]]:
    """Every table of a text, its cells put together again from their lines."""
    rows: list[dict[str, str]] = []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if not re.fullmatch(r"  -+(  -+)+", line):
            continue
        spans = [match.span() for match in re.finditer(r"-+", line)]
        names = [lines[number - 1][slice(*span)].strip() for span in spans]
        below = itertools.takewhile(str.strip, lines[number + 1 :])
        for row in below:
            cells = [row[slice(*span)].strip() for span in spans]
            # A row goes on where its novelty or share, which fit one line, are missing.
            is_new = bool(cells[names.index("novelty" if "novelty" in names else "share")])
            if is_new:
                rows.append(dict(zip(names, cells, strict=True)))
            else:
                rows[-1] = {name: f"{rows[-1][name]} {cell}".strip() for name, cell in zip(names, cells, strict=True)}
    return rows


def flat(text: str) -> str:
    """With one space between words."""
    return " ".join(text.replace("\u00a0", " ").split())


class Tags(HTMLParser):
    """The tags of a page, whether each is closed in its turn, and its text."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return flat(" ".join(self.words))


Rectangle = tuple[float, float, float, float]  # left, top, right, bottom
Drawn = list[tuple[str, Rectangle]]


def by_class(root: Element, name: str) -> list[Element]:
    return [element for element in root.iter() if name in (element.get("class") or "").split()]


def rectangle_of(shape: Element) -> Rectangle:
    if points := shape.get("points"):
        corners = [tuple(map(float, pair.split(","))) for pair in points.split()]
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)
    x, y, width, height = (float(shape.get(name, "nan")) for name in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def boxes_of(root: Element) -> list[Rectangle]:
    return [rectangle_of(by_class(box, "shape")[0]) for box in by_class(root, "box")]


def lines_of(root: Element) -> list[list[tuple[float, float]]]:
    """The lines of the arrows as many points on each."""
    lines = []
    for arrow in by_class(root, "arrow"):
        numbers = [float(word) for word in re.findall(r"-?[\d.]+", by_class(arrow, "line")[0].get("d") or "")]
        points = [(numbers[k], numbers[k + 1]) for k in range(0, len(numbers), 2)]
        along = []
        for first in range(0, len(points) - 3, 3):
            a, b, c, d = points[first : first + 4]
            for t in (k / 16 for k in range(17)):
                weights = ((1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3)
                x, y = (sum(w * p[i] for w, p in zip(weights, (a, b, c, d), strict=True)) for i in (0, 1))
                along.append((x, y))
        lines.append(along)
    return lines


def parse(markup: str) -> Element:
    root = ElementTree.fromstring(markup)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def is_apart(one: Rectangle, other: Rectangle) -> bool:
    return one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def assert_readable(drawing: Drawing) -> None:
    """Boxes lie apart and inside the picture, and a line touches only the boxes it joins."""
    root = parse(draw(drawing))
    boxes = boxes_of(root)
    assert len(boxes) == len(drawing.boxes)
    assert all(is_apart(one, other) for one, other in itertools.combinations(boxes, 2))
    width, height = float(root.get("width", "0")), float(root.get("height", "0"))
    moved = next(group for group in root.iter("g") if group.get("transform"))
    dx, dy = (float(word) for word in re.findall(r"[\d.]+", moved.get("transform") or ""))
    assert all(left + dx >= 0 and top + dy >= 0 for left, top, _, _ in boxes)
    assert all(right + dx <= width and bottom + dy <= height for _, _, right, bottom in boxes)
    keys = [box.key for box in drawing.boxes]
    for arrow, line in zip(drawing.arrows, lines_of(moved), strict=True):
        for key, (left, top, right, bottom) in zip(keys, boxes, strict=True):
            if key not in (arrow.source, arrow.target):
                assert not any(left < x < right and top < y < bottom for x, y in line), (arrow, key)


@pytest.mark.parametrize("audit", PLACES)
def test_text_says_everything(audit: Audit) -> None:
    text = in_words(audit)
    found = columns(text)
    words = flat(text)
    for term in audit.terms:
        what, how = (row for row in found if row["term"] == term.name)
        assert what["what it compares"].replace("- ", "-") == compared_in_words(term).replace("- ", "-")
        assert (what["share"], what["label"]) == (percent(term.share), term.label)
        assert (how["space"], how["process"], how["target net"]) == (term.space, term.process, term.target_learning)
        assert how["stop-grad"] == ("yes" if term.stop_gradient else "no")
        assert how["novelty"] == ("-" if term.novelty is None else f"{term.novelty:.2f}")
        assert how["where"].startswith(term.op)
        assert str(term.place)[-12:] in how["where"]
        assert term.ambiguous in words
        assert all(guard in words for guard in term.anti_collapse)
    for finding in audit.findings:
        assert flat(f"{finding.kind}: {finding.message}") in words
    for average in audit.averages:
        assert average.copy in words
        assert ("never moved" in words) or f"momentum {average.momentum:g}" in words
    for name, count in audit.parameters.items():
        assert f"{name} {count:,}" in words
    assert text.index(audit.verdict) < text.index(audit.why[:20])
    assert text.rstrip().endswith(audit.question)
    assert str(audit) == text


def test_contradiction_is_shouted_and_doubt_is_told() -> None:
    assert "CONTRADICT      constant encoder of loss" in in_words(collapsing())
    text = in_words(ijepa())
    assert "agree           footprint of latent" in text
    assert "could not tell  constant encoder of latent" in text


def test_mixture_is_drawn_to_scale() -> None:
    lines = [line.split() for line in in_words(dreamer()).splitlines() if "##" in line]
    assert [line[0] for line in lines] == ["generative", "supervised", "JEPA-style"]
    assert [len(line[1]) for line in lines] == [25, 12, 3]
    assert "##" not in in_words(mae())


@pytest.mark.parametrize("audit", [*PLACES, pytest.param(EMPTY, id="empty")])
def test_text_fits_a_terminal(audit: Audit) -> None:
    long = replace(audit, title="a title " * 40, verdict="a verdict " * 30, why="why" * 60, encoder="e" * 130)
    terms = tuple(replace(term, name="n" * 70, op="o" * 90, label="L" * 80) for term in audit.terms)
    for text in (
        in_words(long),
        in_words(replace(long, terms=terms)),
        side_by_side([audit, replace(long, terms=terms)]),
    ):
        assert max(map(len, text.splitlines())) <= 110
        assert not [line for line in text.splitlines() if line != line.rstrip()]


def test_text_cannot_steer_the_terminal() -> None:
    audit = replace(dreamer(), title=HOSTILE, why=f"{HOSTILE}\x07")
    for text in (in_words(audit), side_by_side([audit])):
        assert all(letter.isprintable() or letter == "\n" for letter in text)


def test_side_by_side_has_a_line_for_each_term_that_counts() -> None:
    rows = columns(side_by_side(list(AUDITS.values())).replace("\n\n", "\n"))
    assert [row["what it compares"] for row in rows if row["step"] == "I-JEPA"] == [compared_in_words(LATENT)]
    world = next(i for i, row in enumerate(rows) if row["step"].startswith("Dreamer"))
    assert rows[world]["verdict"].startswith("mixed (generative")
    assert [row["loss"].split(" %")[0] for row in rows[world : world + 3]] == ["62", "31", "7"]
    assert "and 1 more" in side_by_side([dreamer()])
    assert "no term was found" in side_by_side([EMPTY])


WORDS = {
    (Space.INPUT, Process.REGRESS, "none"): "predicted input <-> the input itself",
    (Space.INPUT, Process.DENOISE, "none"): "denoised input <-> the input itself",
    (Space.TOKEN, Process.CLASSIFY_TOKEN, "none"): "predicted token <-> the input's own token",
    (
        Space.TOKEN,
        Process.CLASSIFY_TOKEN,
        "frozen",
    ): "predicted token <-> the code that a frozen tokenizer gives the input",
    (Space.NOISE, Process.DENOISE, "none"): "predicted noise <-> the noise that was added to the input",
    (
        Space.FROZEN_EMBEDDING,
        Process.REGRESS,
        "frozen",
    ): "predicted embedding <-> the embedding made by a frozen network",
    (Space.LABEL, Process.CLASSIFY_TOKEN, "none"): "predicted label <-> the given label",
    (Space.REWARD, Process.REGRESS, "ema"): "predicted reward <-> the reward and its slow copy's estimate of the rest",
    (Space.STATISTIC, Process.MATCH_STATISTIC, "none"): "statistic of the embedding <-> a fixed goal",
    (
        Space.OWN_EMBEDDING,
        Process.CONTRAST,
        "joint",
    ): "embedding <-> its partner's, made by the same network, both sides learned, among wrong ones",
}


@pytest.mark.parametrize("space", list(Space))
def test_every_combination_has_a_plain_phrase(space: Space) -> None:
    for process, learning in itertools.product(Process, TargetLearning):
        family = Family.CONTRASTIVE if process is Process.CONTRAST else Family.JEPA
        term = replace(PIXELS, space=space, process=process, target_learning=learning, family=family)
        phrase = compared_in_words(term)
        assert phrase.count(" <-> ") == 1
        assert len(phrase) <= 130
        assert phrase.replace("(EMA)", "").islower()
        assert "_" not in phrase
        assert phrase == WORDS.get((space, process, str(learning)), phrase)


def test_phrase_follows_what_the_prediction_has_seen_and_who_is_compared() -> None:
    seen = replace(PIXELS, novelty=0.0)
    views = replace(LATENT, novelty=0.0, family=Family.INVARIANCE)
    latent = replace(PIXELS, space=Space.NOISE, process=Process.DENOISE, prediction=side("x", entry="frozen"))
    assert compared_in_words(seen) == "reconstructed input <-> the input itself"
    assert compared_in_words(views) == (
        "embedding of one view <-> that of another view, made by a slow copy of the network (EMA)"
    )
    assert compared_in_words(latent) == "predicted noise <-> the noise that was added to a frozen network's embedding"
    assert compared_in_words(replace(PIXELS, family=Family.UNSUPPORTED)) == "could not tell what it compares"
    assert compared_in_words(replace(PIXELS, space=None)) == "could not tell what it compares"
    penalty = replace(PIXELS, space=Space.STATISTIC, prediction=side(stage="none"), target=None)
    assert compared_in_words(penalty) == "size of the weights <-> a fixed goal"


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.0, "0 %"), (0.004, "<1 %"), (0.62, "62 %"), (0.997, ">99 %"), (1.0, "100 %"), (math.nan, "-")],
)
def test_a_share_is_never_rounded_to_nothing_or_to_all(share: float, said: str) -> None:
    assert percent(share) == said


@pytest.mark.parametrize("audit", PLACES)
def test_picture_is_readable(audit: Audit) -> None:
    assert_readable(audit.drawing)


KINDS = ("input", "noise", "online", "ema", "frozen", "mixed", "operation", "constant", "comparison", "statistic")
TEXTS = (
    "",
    "x",
    "mse_loss",
    "a.rather.long.name.of.a.module.11",
    "words that go on " * 5,
    "GENERATIVE-INPUT, mse_loss",
)
NUMBER = st.integers(0, 24)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(TEXTS), st.sampled_from(TEXTS)), max_size=24),
    st.lists(st.tuples(NUMBER, NUMBER), max_size=40, unique=True),
    st.lists(st.tuples(st.booleans(), st.sampled_from([None, 0.0, 0.3, 1.0])), min_size=40, max_size=40),
)
def test_any_picture_is_readable(
    looks: list[tuple[str, str, str]], pairs: list[tuple[int, int]], marks: list[tuple[bool, float | None]]
) -> None:
    """Also with circles and loops, as where a network reads its own output."""
    boxes = [Box(str(i), label, kind, detail) for i, (kind, label, detail) in enumerate(looks)]
    boxes.append(Box("loss", "loss", "loss"))
    ends = [(boxes[a % len(boxes)].key, boxes[b % len(boxes)].key) for a, b in pairs]
    arrows = [Arrow(*pair, *mark) for pair, mark in zip(ends, marks, strict=False)]
    assert_readable(Drawing(tuple(boxes), tuple(arrows)))


def test_line_from_a_narrow_box_stays_clear_of_its_wide_neighbours() -> None:
    wide = [Box(f"wide {i}", "a_label_as_wide_as_any", "input") for i in range(6)]
    arrows = tuple(Arrow(box.key, "sum") for box in wide)
    drawing = Drawing((Box("x", "x", "input"), *wide, Box("sum", "sum", "operation")), (Arrow("x", "sum"), *arrows))
    assert_readable(drawing)


def test_picture_tells_frozen_slow_and_trained_apart() -> None:
    kinds = ("online", "ema", "frozen", "mixed")
    root = parse(draw(Drawing(tuple(Box(kind, kind, kind) for kind in kinds))))
    boxes = dict(zip(kinds, by_class(root, "box"), strict=True))
    stripes = {kind: [e for e in box.iter() if "url(#stripes" in (e.get("fill") or "")] for kind, box in boxes.items()}
    assert {kind for kind, found in stripes.items() if found} == {"frozen", "mixed"}
    assert {kind for kind, box in boxes.items() if by_class(box, "mark")} == {"frozen", "mixed"}
    pattern = next(root.iter("pattern")).get("id")
    assert stripes["frozen"][0].get("fill") == f"url(#{pattern})"
    style = next(root.iter("style")).text or ""
    looks = {kind: re.search(rf"\.{kind} \.shape {{ ([^}}]*) }}", style) for kind in kinds}
    assert all(looks.values())
    assert len({look[1] for look in looks.values() if look}) == len(kinds)
    assert "dasharray" in str(looks["ema"] and looks["ema"][1])
    assert "prefers-color-scheme: dark" in style


def test_stopped_gradients_and_shares_are_marked() -> None:
    drawing = ijepa().drawing
    root = parse(draw(drawing))
    arrows = by_class(root, "arrow")[: len(drawing.arrows)]
    num_bars = [len(by_class(arrow, "stop")) for arrow in arrows]
    assert num_bars == [2 if arrow.stopped else 0 for arrow in drawing.arrows]
    assert [text.text for text in by_class(root, "share")] == ["100 %", "100 %"]
    widths = [float(re.findall(r"[\d.]+", by_class(arrow, "line")[0].get("style") or "")[0]) for arrow in arrows]
    assert {width > 5 for width, arrow in zip(widths, drawing.arrows, strict=True) if arrow.share} == {True}
    assert max(width for width, arrow in zip(widths, drawing.arrows, strict=True) if not arrow.share) < 2


def test_data_has_no_gradient_to_stop() -> None:
    boxes = (Box("x", "x", "input"), Box("c", "mse_loss", "comparison"))
    root = parse(draw(Drawing(boxes, (Arrow("x", "c", stopped=True),))))
    assert not by_class(root, "stop")


def test_key_explains_what_occurs_and_nothing_else() -> None:
    said = {text.text for text in by_class(parse(draw(mae().drawing)), "key")}
    assert said == {"trained", "input", "noise", "comparison", "share of the encoder's gradient"}


def test_long_labels_are_cut_and_kept_in_the_tooltip() -> None:
    label = "backbone.encoder.layers.11.attention.output.dense"
    root = parse(draw(Drawing((Box("b", label, "online", "words " * 40),))))
    (box,) = by_class(root, "box")
    shown = by_class(box, "label")[0].text or ""
    assert "…" in shown
    assert label.startswith(shown.split("…")[0])
    assert label.endswith(shown.split("…")[1])
    assert (next(box.iter("title")).text or "").startswith(f"{label}: words")


def test_picture_refuses_what_it_cannot_draw() -> None:
    box = Box("x", "x", "input")
    with pytest.raises(ValueError, match="names the box 'y'"):
        draw(Drawing((box,), (Arrow("x", "y"),)))
    with pytest.raises(ValueError, match="key of its own"):
        draw(Drawing((box, box)))
    assert "No computation was traced." in draw(Drawing())


def hostile() -> Audit:
    audit = collapsing()
    place = Place(f"{HOSTILE}.py", 1, HOSTILE, HOSTILE)
    term = replace(
        audit.terms[0],
        **dict.fromkeys(("name", "op", "label", "ambiguous"), HOSTILE),
        **dict.fromkeys(("place", "called_from"), place),
        anti_collapse=(HOSTILE,),
    )
    box, arrow = Box(HOSTILE, HOSTILE, "online", HOSTILE), Arrow(HOSTILE, "b")
    return Audit(
        verdict=HOSTILE,
        mixture={HOSTILE: 0.5, "generative": 0.5},
        why=HOSTILE,
        terms=(term,),
        averages=(Average(HOSTILE, HOSTILE, 0.5, 0.1, HOSTILE),),
        findings=(Finding(HOSTILE, HOSTILE, HOSTILE, place),),
        confirmations=(Confirmation(HOSTILE, HOSTILE, None, HOSTILE),),
        parameters={HOSTILE: 3},
        encoder=HOSTILE,
        drawing=Drawing((box, Box("b", HOSTILE, HOSTILE)), (arrow,)),
        title=HOSTILE,
        question=HOSTILE,
    )


def test_foreign_names_cannot_become_markup() -> None:
    page = Tags(render([hostile(), hostile()]))
    assert "script" not in page.names
    assert page.text.count("<script>alert('x')</script> & \"quoted\"") > 20
    root = parse(draw(hostile().drawing))
    assert not list(root.iter("script"))
    assert HOSTILE.replace("\x1b", " ") in (by_class(root, "box")[0].findtext("title") or "")


@pytest.mark.parametrize(
    "audits", [list(AUDITS.values()), [dreamer()], [EMPTY], []], ids=["all", "one", "empty", "none"]
)
def test_page_needs_nothing_and_holds_everything(audits: Sequence[Audit]) -> None:
    markup = render(audits)
    page = Tags(markup)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.names)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\((?!#)", markup)
    assert "default-src 'none'" in markup
    anchors = [value for name, value in page.attributes if name == "id" and not str(value).startswith("stripes-")]
    assert len(anchors) == len(set(anchors)) == len(audits)
    assert page.names.count("svg") == sum(bool(audit.drawing.boxes) for audit in audits)
    for audit in audits:
        for said in (audit.verdict, audit.why, audit.question, audit.title):
            assert flat(said) in page.text
        for term in audit.terms:
            assert compared_in_words(term).replace(" <-> ", " ↔ ") in page.text
            for said in (term.name, term.op, term.label, term.space, term.process, term.ambiguous):
                assert str(said) in page.text
            assert html.escape(str(term.place)) in markup
        for finding in audit.findings:
            assert flat(finding.message) in page.text
        for each in audit.confirmations:
            assert {True: "✓ agree", False: "✗ CONTRADICT", None: "○ could not tell"}[each.agrees] in page.text


def test_output_is_the_same_every_time() -> None:
    assert render([dreamer(), vae()]) == render([dreamer(), vae()])
    assert draw(dreamer().drawing) == draw(dreamer().drawing)
    assert in_words(dreamer()) == in_words(dreamer())


def test_page_is_written_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "audit.html"
    assert write_page([mae()], path) == path
    write_page([vae()], path)
    assert path.read_text(encoding="utf-8") == render([vae()])
    assert list(path.parent.iterdir()) == [path]


def test_samples_can_be_stored() -> None:
    assert json.loads(json.dumps(dreamer().to_json()))["terms"][0]["space"] == "input"


# Texts that leave their box or the picture or cover each other, and how far the page is wider than the window.
MEASURE = """<script>
const found = {texts: 0, cut: [], overlaps: []}, slack = 1.5;
for (const svg of document.querySelectorAll(".audit-picture")) {
  const inside = (a, b) => a.left > b.left - slack && a.right < b.right + slack && a.top > b.top - slack
    && a.bottom < b.bottom + slack;
  const frame = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll("text")].map(t => [t, t.getBoundingClientRect()]);
  found.texts += texts.length;
  for (const [text, place] of texts) {
    const box = text.closest(".box");
    const around = box ? box.querySelector(".shape").getBoundingClientRect() : frame;
    if (!inside(place, around)) found.cut.push(text.textContent);
    for (const [other, covered] of texts) {
      const across = Math.min(place.right, covered.right) - Math.max(place.left, covered.left);
      const down = Math.min(place.bottom, covered.bottom) - Math.max(place.top, covered.top);
      if (other !== text && across > slack && down > 0.35 * place.height)
        found.overlaps.push([text.textContent, other.textContent]);
    }
  }
}
found.wider = document.documentElement.scrollWidth - document.documentElement.clientWidth;
document.body.insertAdjacentHTML("beforeend", '<pre id="measured"></pre>');
document.getElementById("measured").textContent = JSON.stringify(found);
</script>"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")
@pytest.mark.parametrize("width", [1240, 600])
def test_nothing_is_cut_off_and_no_texts_overlap(tmp_path: Path, width: int) -> None:
    words = (
        "backbone.encoder.layers.11.attention.output",
        "WWW MMM @@@ %%% " * 3,
        "ill-fitting little jittery title " * 2,
    )
    boxes = [Box(f"{kind} {word}", word, kind, word[3:]) for kind in KINDS for word in words]
    crowded = replace(EMPTY, drawing=Drawing(tuple(boxes)))
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", render([*AUDITS.values(), crowded]))
    document = browse(
        page.replace("</body>", f"{MEASURE}</body>"), tmp_path, "--dump-dom", f"--window-size={width},900"
    )
    measured = json.loads(html.unescape(document.rpartition('id="measured">')[2].partition("<")[0]))
    assert measured["texts"] > 100
    assert measured["wider"] <= 0
    assert measured["cut"] == []
    assert measured["overlaps"] == []
