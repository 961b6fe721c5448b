"""Pictures for eyes: targets boxed on a contrast-stretched enlargement, and captioned panels of pictures.

Pictures are (H, W, 3) uint8 in BGR, as OpenCV writes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ismallnet.types import Target

    Picture = NDArray[np.uint8]
    Colour = tuple[int, int, int]
    Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels of the picture, inclusive

Kind = Literal["detected", "false", "missed"]
COLOURS: dict[Kind, Colour] = {"detected": (60, 60, 255), "false": (0, 220, 255), "missed": (80, 230, 80)}
"""The field's colours, in BGR: red for what was found, yellow for false alarms, green for what was missed."""

SIDE = 768
"""The longer side in pixels that small pictures are enlarged to at least, by a whole factor."""
_FONT, _TEXT, _WHITE, _BLACK = cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), (0, 0, 0)


def stretch(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Stretch an image's contrast for the eye: the 0.5 and 99.5 percentiles become black and white.

    Args:
        image: (H, W), any real type.

    Returns:
        (H, W) grey. Where the two percentiles are one, minimum and maximum take their place; a constant image
        is mid-grey.
    """
    values = np.asarray(image, np.float64)
    low, high = np.percentile(values, (0.5, 99.5))
    if low == high:
        low, high = values.min(), values.max()
    if low == high:
        return np.full(values.shape, 128, np.uint8)
    scaled = np.round(255 * np.clip((values - low) / (high - low), 0, 1))
    return np.asarray(scaled, np.uint8)


def overlay(
    image: NDArray[Any],
    targets: Sequence[Target],
    *,
    kinds: Sequence[Kind] | None = None,
    text: bool = True,
    as_is: bool = False,
) -> Picture:
    """Draw targets as boxes on an image.

    A small picture is enlarged by a whole factor (pixels stay squares) until its longer side reaches `SIDE`;
    boxes keep clear of their targets and texts of all boxes where there is room, so that targets of a few
    pixels remain visible.

    Args:
        image: (H, W), any real type; stretched in contrast.
        targets: In image coordinates.
        kinds: For the colour of each target; `detected` for all where None.
        text: Write each target's number (from 1) and its peak score beside its box.
        as_is: Keep size and grey levels, of an image in [0, 1]: frames of a video would flicker.

    Returns:
        (factor · H, factor · W, 3), factor ≥ 1.

    Raises:
        ValueError: Not one kind a target.
    """
    kinds = ["detected"] * len(targets) if kinds is None else kinds
    if len(kinds) != len(targets):
        raise ValueError(f"got {len(kinds)} kinds for {len(targets)} targets; give one a target")
    factor = 1 if as_is else -(-SIDE // max(image.shape))
    levels = np.round(255 * np.clip(image, 0, 1)).astype(np.uint8) if as_is else stretch(image)
    picture = np.asarray(cv2.cvtColor(enlarge(levels, factor), cv2.COLOR_GRAY2BGR), np.uint8)
    boxes = [
        _box(picture, target, factor, COLOURS[kind]) for target, kind in zip(targets, kinds, strict=True)
    ]
    taken = boxes.copy()
    for number, (target, kind, box) in enumerate(zip(targets, kinds, boxes, strict=True), 1):
        if text:
            taken.append(_text(picture, f"#{number}  {target.peak:.2f}", COLOURS[kind], box, taken))
    return picture


def enlarge(picture: NDArray[Any], factor: int) -> NDArray[Any]:
    """Enlarge a picture of any type by a whole factor, at least 1: every pixel becomes a square."""
    return np.repeat(np.repeat(picture, factor, 0), factor, 1)


def outline(picture: NDArray[np.uint8], mask: NDArray[np.bool_], colour: Colour) -> None:
    """Draw the edges of a mask, a pixel wide and inside it, on a picture of the same window.

    Args:
        picture: (factor · H, factor · W, 3), drawn on.
        mask: (H, W).
        colour: In BGR.
    """
    large = enlarge(mask.view(np.uint8), picture.shape[0] // mask.shape[0])
    inside = cv2.erode(large, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    picture[large > inside] = colour


def panel(
    pictures: Sequence[NDArray[np.uint8]], captions: Sequence[str], *, columns: int | None = None
) -> Picture:
    """Set pictures side by side, each under its caption.

    Args:
        pictures: (H, W) grey or (H, W, 3) BGR each; smaller ones are enlarged by a whole factor towards the
            largest of the row, and centred on black.
        captions: One a picture.
        columns: Pictures a row; all in one row where None.

    Raises:
        ValueError: No picture, not one caption a picture, or less than one column.
    """
    columns = len(pictures) if columns is None else columns
    if not pictures or len(captions) != len(pictures) or columns < 1:
        raise ValueError(
            f"got {len(pictures)} pictures, {len(captions)} captions and {columns} columns; "
            "give at least one picture, one caption a picture and at least one column"
        )
    width = max(picture.shape[1] for picture in pictures)
    rows = []
    for first in range(0, len(pictures), columns):
        row = range(first, min(first + columns, len(pictures)))
        height = max(pictures[n].shape[0] for n in row)
        cells = [_cell(pictures[n], captions[n], height, width) for n in row]
        rows.append(np.hstack(cells + [np.zeros_like(cells[0])] * (columns - len(cells))))
    return np.vstack(rows)


def _box(picture: Picture, target: Target, factor: int, colour: Colour) -> Box:
    """Draw one box, a pixel of the image clear of its target, and return it."""
    height, width = picture.shape[:2]
    gap = max(factor, 5)
    x0, y0 = max(target.x0 * factor - gap, 0), max(target.y0 * factor - gap, 0)
    x1, y1 = min(target.x1 * factor + gap, width) - 1, min(target.y1 * factor + gap, height) - 1
    cv2.rectangle(picture, (x0, y0), (x1, y1), colour, 2 if factor > 1 else 1)
    return x0, y0, x1, y1


def _text(picture: Picture, text: str, colour: Colour, box: Box, taken: Sequence[Box]) -> Box:
    """Write above, below, right or left of a box, where least of what is taken is covered; the place."""
    (w, h), below = cv2.getTextSize(text, _FONT, _TEXT, 1)
    w, h = w + 2, h + below + 1
    x0, y0, x1, y1 = box
    height, width = picture.shape[:2]
    corners = ((x0, y0 - h - 3), (x0, y1 + 4), (x1 + 4, y0), (x0 - w - 3, y0))
    inside = ((max(min(x, width - w), 0), max(min(y, height - h), 0)) for x, y in corners)
    places = [(x, y, x + w - 1, y + h - 1) for x, y in inside]
    place = min(places, key=lambda place: sum(_overlap(place, other) for other in taken))
    cv2.rectangle(picture, place[:2], place[2:], _BLACK, cv2.FILLED)
    cv2.putText(picture, text, (place[0] + 1, place[3] - below + 1), _FONT, _TEXT, colour, 1, cv2.LINE_AA)
    return place


def _overlap(a: Box, b: Box) -> int:
    """Pixels that two boxes share."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]) + 1, min(a[3], b[3]) - max(a[1], b[1]) + 1
    return max(width, 0) * max(height, 0)


def _cell(picture: NDArray[np.uint8], caption: str, height: int, width: int) -> Picture:
    """Centre a picture on (height, width) black pixels below a line with its caption."""
    factor = max(1, min(height // picture.shape[0], width // picture.shape[1]))
    picture = enlarge(picture, factor)
    if picture.ndim == 2:
        picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR), np.uint8)
    (w, _), _ = cv2.getTextSize(caption, _FONT, _TEXT, 1)
    size, head = _TEXT * min(1, (width - 8) / max(w, 1)), 24
    cell = np.zeros((head + height, width, 3), np.uint8)
    y, x = head + (height - picture.shape[0]) // 2, (width - picture.shape[1]) // 2
    cell[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    cv2.putText(cell, caption, (2, 16), _FONT, size, _WHITE, 1, cv2.LINE_AA)
    return cell
