"""Pictures that arms on still pictures have to show: kept as arrays when a cell ends, drawn as PNGs in the report."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from jepalab.compare.cells import Cell, picture_folder, slug
from jepalab.compare.figures import metric_panel
from jepalab.compare.kept import Arrays, condition_figure, kept_arrays
from jepalab.compare.readings import Arm, Readings, listed, number
from jepalab.compare.sheets import Entry, Figure, Section
from jepalab.data.sample_stream import SampleStream
from jepalab.instruments.image_pictures import draw_objective
from jepalab.run import Run

GAP, WIDEST, ZOOMED = 2, 1000, 64  # a picture below ZOOMED pixels is shown larger, as far as the row fits the page
BLOCKS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167), (213, 94, 0), (0, 114, 178))
HIDDEN = (128, 128, 128)
RIGHT, WRONG = (0, 158, 115), (213, 94, 0)
Row = UInt8[np.ndarray, "k h w _"]


def draw_image_cell(
    cell: Cell, run: Run, pictures: Path, *, seed: int, arms: Collection[str] | None = None, encoder: str = ""
) -> None:
    """Writes the pictures of one arm as arrays into `pictures`: of one seed, of still pictures, and of these arms.

    encoder  by its name, whose features are drawn; the first, if empty.
    """
    if run.seed == seed and (arms is None or cell.arm in arms) and isinstance(run.stream, SampleStream):
        file = picture_folder(pictures, cell.condition) / f"{slug(cell.arm)}.stills.npz"
        drawn = draw_objective(run.objective, run.stream, encoder=encoder)
        np.savez_compressed(file, **drawn)  # pyrefly: ignore[bad-argument-type]


def picture_sections(folder: Path, readings: Readings) -> list[Section]:
    """What was kept below `folder`/pictures, for each condition."""
    kept = kept_arrays(folder, readings, ".stills.npz")
    return [
        Section(
            "What is hidden, and what is predicted",
            "Masks as they are drawn in training, on test pictures: grey is hidden from the encoder; each block "
            "that is predicted on its own has its colour, and where blocks overlap the last one is seen.",
            figures=[f for c, arms in kept.items() if (f := _mask_figure(readings, c, arms))],
        ),
        Section(
            "What the encoders see",
            "Patch features along their first three principal components as red, green and blue, and how much "
            "attention each patch receives in the last block (white: most). Colours of two arms cannot be compared.",
            figures=[f for c, arms in kept.items() if (f := _feature_figure(readings, c, arms))],
        ),
        Section(
            "What lies near",
            "For six test pictures the five training pictures with the closest pooled features, of the same sample of "
            "training pictures for every arm.",
            figures=[f for c, arms in kept.items() if (f := _neighbour_figure(readings, c, arms))],
        ),
        Section(
            "What an embedding still holds",
            "A decoder of one size, trained afterwards on frozen patch tokens, draws test pictures. It took no part in "
            "training. An embedding may well forget what does not serve it: a high PSNR is no merit of its own. Patch "
            "tokens may hold more numbers than their patch has; the mean token never does.",
            figures=[f for c, arms in kept.items() if (f := _decoded_figure(readings, c, arms))],
        ),
        Section(
            "What the generative arms draw",
            figures=[f for c, arms in kept.items() if (f := _drawn_figure(readings, c, arms))],
        ),
    ]


def encode_row(pictures: Row) -> tuple[str, int, int]:
    """The pictures side by side as the data: address of a PNG, its width and its height; gaps are transparent."""
    num, h, w, _ = pictures.shape
    row = np.zeros((h, num * (w + GAP) - GAP, 4), dtype=np.uint8)
    for i, picture in enumerate(_in_colour(pictures)):
        row[:, i * (w + GAP) : i * (w + GAP) + w] = np.concatenate([picture, np.full((h, w, 1), 255, np.uint8)], -1)
    file = io.BytesIO()
    Image.fromarray(row, "RGBA").save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}", row.shape[1], h


def show_masks(images: Row, context: Bool[np.ndarray, "k n"], target: Bool[np.ndarray, "k g n"]) -> tuple[Row, Row]:
    """The pictures with all but the context in grey, and with each target block in its colour."""
    seen, blocks = _in_colour(images).copy(), (_in_colour(images) * 0.35).astype(np.uint8)
    seen[~_on_pixels(context, images.shape[1:3])] = HIDDEN
    bright = _in_colour(images)
    for g in range(target.shape[1]):
        where = _on_pixels(target[:, g], images.shape[1:3])
        colour = np.array(BLOCKS[g % len(BLOCKS)])
        blocks[where] = (0.5 * bright[where] + 0.5 * colour).astype(np.uint8)
    return seen, blocks


def heat(values: Float[np.ndarray, "k n"], size: tuple[int, int]) -> Row:
    """Grey pictures of one number a patch: white at the largest of each picture, black at 0."""
    scaled = values / np.maximum(values.max(1, keepdims=True), 1e-12)
    return _enlarge((scaled * 255).round().astype(np.uint8)[..., None], size)


def _mask_figure(readings: Readings, condition: str, arms: Mapping[Arm, Arrays]) -> Figure | None:
    alike: dict[bytes, list[Arm]] = {}
    for arm, kept in arms.items():
        if "context" in kept:
            alike.setdefault(kept["context"].tobytes() + kept["target"].tobytes(), []).append(arm)
    panels, words = [], []
    rows: list[Sequence[Entry]] = []
    for group in alike.values():
        kept, names = arms[group[0]], ", ".join(arm.name for arm in group)
        seen, blocks = show_masks(kept["images"], kept["context"], kept["target"])
        panels.append(_card(names, {"picture": kept["images"], "seen": seen, "predicted": blocks}, condition))
        shares = kept["context"].mean(1), kept["target"].any(1).mean(1)
        num_blocks = kept["target"].shape[1]
        shown = [f"{share.mean():.0%}".replace("%", " %") for share in shares]
        count = f"{num_blocks} blocks" if num_blocks > 1 else "1 block"
        words.append(f"{names}: {shown[0]} seen, {shown[1]} predicted in {count}")
        rows += [[names, k, float(a), float(b)] for k, (a, b) in enumerate(zip(*shares, strict=True))]
    caption = f"Shares of a picture's patches. {'; '.join(words)}."
    return condition_figure(
        readings, condition, panels, caption, "masks", ["arms", "picture", "seen", "predicted"], rows
    )


def _feature_figure(readings: Readings, condition: str, arms: Mapping[Arm, Arrays]) -> Figure | None:
    features, attention, words = {}, {}, []
    rows: list[Sequence[Entry]] = []
    for arm, kept in arms.items():
        size = kept["images"].shape[1:3]
        if "features" in kept:
            features |= {} if features else {"picture": kept["images"]}
            features[arm.name] = _enlarge(kept["features"], size)
        if "attention" in kept:
            attention |= {} if attention else {"picture": kept["images"]}
            attention[arm.name] = heat(kept["attention"], size)
            largest = kept["attention"].max(1)
            words.append(f"{arm.name} {number(float(largest.mean()), 1)}")
            rows += [[arm.name, k, float(value)] for k, value in enumerate(largest)]
    cards = {"features": features, "attention": attention}
    panels = [_card(name, strips, condition) for name, strips in cards.items() if strips]
    caption = "Principal components were fitted to patches of training pictures, for each arm on its own."
    if words:
        caption += f" The patch that is attended most gets so many times an equal share: {', '.join(words)}."
    return condition_figure(readings, condition, panels, caption, "attention", ["arm", "picture", "largest"], rows)


def _neighbour_figure(readings: Readings, condition: str, arms: Mapping[Arm, Arrays]) -> Figure | None:
    panels, words = [], []
    rows: list[Sequence[Entry]] = []
    for arm, kept in arms.items():
        if "neighbours" not in kept:
            continue
        near, same = _in_colour(kept["neighbours"].reshape(-1, *kept["neighbours"].shape[2:])), kept["same"]
        near = _framed(near, same.flatten()).reshape(*same.shape, *near.shape[1:])
        queries = _in_colour(_fit(kept["images"][: len(near)], near.shape[2]))
        strips = {
            f"{i + 1}": np.concatenate([query[None], others])
            for i, (query, others) in enumerate(zip(queries, near, strict=True))
        }
        panels.append(_card(arm.name, strips, condition, style="strips narrow"))
        known = same[same >= 0]
        if len(known):
            words.append(f"{arm.name} {int(known.sum())} of {len(known)}")
        rows += [[arm.name, i, j, int(v)] for i, each in enumerate(same) for j, v in enumerate(each)]
    caption = "The query comes first in each row."
    if words:
        caption += f" Framed green: the same class; framed red: another. Of the same class are {', '.join(words)}."
    return condition_figure(
        readings, condition, panels, caption, "neighbours", ["arm", "query", "neighbour", "same"], rows
    )


def _decoded_figure(readings: Readings, condition: str, arms: Mapping[Arm, Arrays]) -> Figure | None:
    measured = [m for m in ("posthoc_psnr", "posthoc_pooled_psnr") if m in readings.metrics_in(condition)]
    panels, words = [metric_panel(readings, condition, metric, only_measured=True) for metric in measured], []
    rows: list[Sequence[Entry]] = []
    for key, how in (("decoded", "from patch tokens"), ("decoded_pooled", "from the mean token alone")):
        shown, found = {}, []
        for arm, kept in arms.items():
            if key not in kept:
                continue
            shown |= {} if shown else {"picture": kept["images"]}
            shown[arm.name] = kept[key]
            truth = _fit(kept["images"], kept[key].shape[1])
            error = ((kept[key] / 255.0 - truth / 255.0) ** 2).mean((1, 2, 3))
            found.append(f"{arm.name} {number(-10 * math.log10(max(error.mean(), 1e-12)), 1)}")
            rows += [[arm.name, how, k, float(value)] for k, value in enumerate(error)]
        if shown:
            panels.append(_card(how, shown, condition))
            words.append(f"{how} {', '.join(found)}")
    caption = f"PSNR in dB on these pictures: {'; '.join(words)}." if words else "Higher holds more of the pixels."
    return condition_figure(
        readings, condition, panels, caption, "decoded", ["arm", "how", "picture", "squared_error"], rows
    )


def _drawn_figure(readings: Readings, condition: str, arms: Mapping[Arm, Arrays]) -> Figure | None:
    panels, words = [], []
    for arm, kept in arms.items():
        if "reconstructed" in kept:
            seen, _ = show_masks(kept["images"], kept["context"], kept["target"])
            strips = {"picture": kept["images"], "seen": seen, "drawn": kept["reconstructed"]}
            panels.append(_card(f"{arm.name}: hidden patches", strips, condition))
            words.append(f"{arm.name} fills in what is hidden")
        if "samples" in kept:
            half = len(kept["samples"]) // 2
            strips = {"samples": kept["samples"][:half], "": kept["samples"][half:]}
            panels.append(_card(f"{arm.name}: out of noise", strips, condition))
            words.append(f"{arm.name} draws out of noise, from no picture")
    caption = (
        f"{listed(words)}. Where a target is normalised patch by patch, brightness and contrast are the picture's own."
    )
    arm_names = [[arm.name] for arm, kept in arms.items() if {"reconstructed", "samples"} & kept.keys()]
    return condition_figure(readings, condition, panels, caption, "drawn", ["arm"], arm_names)


def _card(title: str, strips: Mapping[str, Row], condition: str, *, style: str = "strips") -> str:
    card = Element("div", {"class": style})
    if title:
        SubElement(card, "h4").text = title
    for name, pictures in strips.items():
        line = SubElement(card, "div", {"class": "strip"})
        SubElement(line, "span").text = name
        source, width, height = encode_row(pictures)
        zoom = max(1, min(-(-ZOOMED // pictures.shape[2]), WIDEST // width))
        words = " ".join(filter(None, [f"{condition}, {len(pictures)} pictures:", title, name]))
        facts = {"src": source, "alt": words, "width": str(zoom * width), "height": str(zoom * height)}
        SubElement(line, "img", facts)
    return ElementTree.tostring(card, encoding="unicode", method="html")


def _in_colour(pictures: Row) -> Row:
    return np.repeat(pictures, 3, axis=-1) if pictures.shape[-1] == 1 else pictures


def _on_pixels(patches: Bool[np.ndarray, "k n"], size: tuple[int, ...]) -> Bool[np.ndarray, "k h w"]:
    return _enlarge(patches[..., None], size)[..., 0]


def _enlarge(patches: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """[k n c] on a square grid to [k h w c]: each patch covers its pixels."""
    side = round(patches.shape[1] ** 0.5)
    grid = patches.reshape(len(patches), side, side, -1)
    rows, columns = (np.arange(length) * side // length for length in size)
    return grid[:, rows][:, :, columns]


def _fit(pictures: Row, size: int) -> Row:
    """The pictures at this size, by taking the nearest pixels."""
    rows, columns = (np.arange(size) * length // size for length in pictures.shape[1:3])
    return pictures[:, rows][:, :, columns]


def _framed(pictures: Row, same: np.ndarray) -> Row:
    framed, thick = pictures.copy(), max(1, pictures.shape[1] // 24)
    for picture, is_same in zip(framed, same, strict=True):
        if is_same >= 0:
            colour = RIGHT if is_same else WRONG
            picture[:thick], picture[-thick:], picture[:, :thick], picture[:, -thick:] = (colour,) * 4
    return framed
