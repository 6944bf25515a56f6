"""Generated scenes: one to three toys before a textured background.

A class is a shape with a pattern (a striped ball, a checked box, ..); the colours of toys and
backgrounds come from one and the same distribution, so they tell nothing about the class.
"""

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Field = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""A value at every point, over coordinates x to the right and y down."""


@dataclass(frozen=True)
class _Toy:
    """A class: how it looks.

    Attributes:
        shape: signed distance to the outline (negative inside) over object coordinates, of which
            one unit is the object's radius; it about fills -1..1. Off the outline the distance
            need not be exact.
        pattern: share of the second colour, 0..1, over coordinates in pattern periods.
        tilt: largest rotation from upright, in degrees.
        origin: the pattern's origin in object coordinates; None for a random one.
        roundness: how much of the shading is a sphere's; the rest is a flat side's.
    """

    shape: Field
    pattern: Field
    tilt: float
    origin: tuple[float, float] | None = None
    roundness: float = 0.3


def _polygon(*corners: tuple[float, float]) -> Field:
    """A convex polygon whose corners run clockwise on the screen."""

    def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        sides = []
        for (x0, y0), (x1, y1) in zip(corners, (*corners[1:], corners[0]), strict=True):
            side = (y1 - y0) * (x - x0) - (x1 - x0) * (y - y0)
            sides.append((side / np.hypot(x1 - x0, y1 - y0)).astype(np.float32))
        return np.max(sides, axis=0)

    return distance


def _mushroom(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    cap = np.maximum(np.hypot(x, (y - 0.15) * 0.92) - 1.0, y - 0.25)
    stem = np.maximum(np.abs(x) - 0.36 - 0.12 * y, np.abs(y - 0.5) - 0.45)
    return np.minimum(cap, stem)


def _shell(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # A fan that opens upwards from its hinge at (0, 0.85), 60 degrees to either side.
    up = 0.85 - y
    return np.maximum(np.hypot(x, up) - 1.7, np.abs(x) * 0.5 - up * 0.866)


def _sharpen(wave: np.ndarray, slope: float = 2.5) -> np.ndarray:
    """A wave around 0 as a pattern of two colours with soft edges."""
    return np.clip(0.5 + slope * wave, 0, 1)


def _dots(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    row = np.floor(y)
    across = (x + 0.5 * (row % 2)) % 1 - 0.5
    return _sharpen(0.34 - np.hypot(across, y - row - 0.5), 6)


def _bricks(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    row = np.floor(1.5 * y)
    joint = np.abs((0.75 * x + 0.5 * (row % 2)) % 1 - 0.5) / 0.75
    bed = np.abs(1.5 * y - row - 0.5) / 1.5
    return _sharpen(np.maximum(joint - 0.56, bed - 0.24), 10)


_TOYS = {
    "ball": _Toy(  # striped
        lambda x, y: np.hypot(x, y) - 0.92,
        lambda x, y: _sharpen(np.sin(2 * np.pi * x)),
        tilt=30,
        roundness=1,
    ),
    "box": _Toy(  # checked
        lambda x, y: np.maximum(np.abs(x) - 0.85, np.abs(y) - 0.78),
        lambda x, y: _sharpen(np.sin(np.pi * x) * np.sin(np.pi * y), 4),
        tilt=20,
    ),
    "mushroom": _Toy(_mushroom, _dots, tilt=15, roundness=0.7),
    "house": _Toy(
        _polygon((-0.8, 0.9), (-0.8, -0.2), (0.0, -1.0), (0.8, -0.2), (0.8, 0.9)),
        _bricks,
        tilt=10,
        roundness=0,
    ),
    "kite": _Toy(  # in zigzag
        _polygon((0.0, -1.0), (0.75, -0.3), (0.0, 1.15), (-0.75, -0.3)),
        lambda x, y: _sharpen(np.sin(2 * np.pi * (0.9 * y + np.abs(0.8 * x % 1 - 0.5)))),
        tilt=25,
        roundness=0,
    ),
    "shell": _Toy(  # ringed
        _shell,
        lambda x, y: _sharpen(np.sin(2 * np.pi * np.hypot(x, y)) - 0.45),
        tilt=30,
        origin=(0.0, 0.85),
        roundness=0.6,
    ),
}

CLASSES = tuple(_TOYS)
"""Names of the foreground classes; class k + 1 in masks is CLASSES[k]."""


@dataclass(frozen=True)
class VisibleObject:
    """A visible object of a scene.

    Attributes:
        name: its class.
        box: (left, top, right, bottom) of its visible pixels, inclusive, from 0.
        truncated: whether the frame cuts it.
        occluded: whether another object hides a part of it.
    """

    name: str
    box: tuple[int, int, int, int]
    truncated: bool
    occluded: bool


@dataclass(frozen=True)
class Scene:
    """A generated scene.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8, 0 background, k + 1 for CLASSES[k].
        saliency: (H, W) uint8.
        items: the visible objects, from back to front.
    """

    image: np.ndarray
    labels: np.ndarray
    saliency: np.ndarray
    items: tuple[VisibleObject, ...]


@dataclass(frozen=True)
class _Placed:
    """An object put somewhere: its class and place, and its outline on the image's pixels."""

    index: int
    x: np.ndarray
    y: np.ndarray
    radius: float
    distance: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool, its pixels, hidden ones too."""
        return self.distance < 0


def _colour_pair(rng: np.random.Generator) -> np.ndarray:
    """A dark and a light colour in random order: (2, 3) float32 RGB in 0..1.

    Everything in a scene is painted from here, which is why colour does not give the class.
    """
    hue = rng.random()
    second = hue + rng.choice([rng.normal(0, 0.06), rng.uniform(0.2, 0.8)])
    dark = colorsys.hsv_to_rgb(hue, rng.uniform(0.3, 0.9), rng.uniform(0.25, 0.5))
    light = colorsys.hsv_to_rgb(second % 1, rng.uniform(0.1, 0.7), rng.uniform(0.75, 1.0))
    pair = np.array([dark, light], np.float32)
    return pair[::-1] if rng.random() < 0.5 else pair


def _distinct_pair(rng: np.random.Generator, others: list[np.ndarray]) -> np.ndarray:
    """The one of a few colour pairs whose mean is farthest from those of `others`.

    It makes outlines visible: a photograph's superpixels follow them because colours change there.
    """
    pairs = [_colour_pair(rng) for _ in range(4)]
    means = [other.mean(0) for other in others]
    return max(pairs, key=lambda p: min(np.abs(p.mean(0) - mean).sum() for mean in means))


def _blend(pair: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Two colours mixed by the share (H, W) of the second one: (H, W, 3)."""
    share = share[..., None]
    return pair[0] * (1 - share) + pair[1] * share


def _noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> np.ndarray:
    """Smooth noise with features of about `cell` pixels: (H, W) float32, about 0..1."""
    grid = (int(shape[0] / cell) + 3, int(shape[1] / cell) + 3)
    values = rng.random(grid, np.float32)
    size = (int(grid[1] * cell) + 1, int(grid[0] * cell) + 1)
    smooth = cv2.resize(values, size, interpolation=cv2.INTER_CUBIC)
    return smooth[: shape[0], : shape[1]]


def _leaves(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> np.ndarray:
    """Overlapping leaf-like blobs of different shades: (H, W) float32 in 0..1."""
    canvas = np.full(shape, rng.random(), np.float32)
    for _ in range(rng.integers(40, 90)):
        centre = rng.random(2) * (shape[1], shape[0])
        axes = scale * rng.uniform(0.03, 0.09) * np.array([1.0, rng.uniform(0.3, 0.7)])
        cv2.ellipse(canvas, (centre, 2 * axes, rng.uniform(0, 180)), rng.random(), -1)
    return canvas


def _background(
    rng: np.random.Generator, shape: tuple[int, int], scale: float, pair: np.ndarray
) -> np.ndarray:
    """A background without any class's pattern: (H, W, 3) float32 in 0..1."""
    style = rng.integers(4)
    if style == 0:  # clouds
        mix = 0.65 * _noise(rng, shape, scale * 0.3) + 0.35 * _noise(rng, shape, scale * 0.08)
    elif style == 1:  # leaves
        mix = _leaves(rng, shape, scale)
    elif style == 2:  # grain, as of sand or carpet
        mix = 0.4 * _noise(rng, shape, scale * 0.5) + 0.6 * _noise(rng, shape, scale * 0.016)
    else:  # a soft gradient, as of a wall
        angle = rng.uniform(0, 2 * np.pi)
        rows, columns = np.indices(shape, np.float32) / max(shape)
        along = np.cos(angle) * (columns - 0.5) + np.sin(angle) * (rows - 0.5)
        mix = 0.5 + along + 0.3 * (_noise(rng, shape, scale * 0.12) - 0.5)
    return _blend(pair, np.clip(mix, 0, 1))


def _place(rng: np.random.Generator, index: int, shape: tuple[int, int]) -> _Placed:
    """An object of class `index` at a random place, size and tilt."""
    height, width = shape
    toy = _TOYS[CLASSES[index]]
    radius = min(shape) * rng.uniform(0.24, 0.36)
    # The centre keeps 0.7 radii from the frame: some objects are cut, none is mostly outside.
    column = rng.uniform(0.7 * radius, width - 0.7 * radius)
    row = rng.uniform(0.7 * radius, height - 0.7 * radius)
    angle = np.deg2rad(rng.uniform(-toy.tilt, toy.tilt))
    rows, columns = np.indices(shape, np.float32)
    right, down = (columns - column) / radius, (rows - row) / radius
    x = np.cos(angle) * right + np.sin(angle) * down
    y = np.cos(angle) * down - np.sin(angle) * right
    distance = toy.shape(x, y)
    return _Placed(index, x, y, radius, distance)


def _visible(placed: list[_Placed], shape: tuple[int, int]) -> np.ndarray:
    """Which object is seen at each pixel: (H, W) uint8, 0 for none, i + 1 for placed[i]."""
    seen = np.zeros(shape, np.uint8)
    for number, item in enumerate(placed, 1):
        seen[item.mask] = number
    return seen


def _arrange(rng: np.random.Generator, first: int, shape: tuple[int, int]) -> list[_Placed]:
    """One to three objects from back to front, the first of class `first`.

    Objects may hide each other, but at least 55 % of each stays visible.
    """
    placed = [_place(rng, first, shape)]
    count = rng.choice([1, 2, 3], p=[0.35, 0.4, 0.25])
    for _ in range(10):
        if len(placed) == count:
            break
        trial = [*placed, _place(rng, int(rng.integers(len(CLASSES))), shape)]
        seen = np.bincount(_visible(trial, shape).ravel(), minlength=len(trial) + 1)[1:]
        whole = [np.count_nonzero(item.mask) for item in trial]
        if all(part >= 0.55 * area for part, area in zip(seen, whole, strict=True)):
            placed = trial
    return placed


def _paint(
    rng: np.random.Generator,
    image: np.ndarray,
    item: _Placed,
    pair: np.ndarray,
    light: np.ndarray,
    scale: float,
) -> np.ndarray:
    """`image` with an object and its shadow on it: (H, W, 3) float32 in 0..1."""
    toy = _TOYS[CLASSES[item.index]]
    period = scale * rng.uniform(0.07, 0.095)
    left, top = rng.random(2) if toy.origin is None else np.array(toy.origin)
    x, y = ((item.x - left) * item.radius / period, (item.y - top) * item.radius / period)
    colours = _blend(pair, toy.pattern(x, y))

    # Light falls on a sphere's or a flat side's surface; the rim is darker, as outlines are.
    towards = light[0] * item.x + light[1] * item.y
    depth = np.clip(-item.distance * item.radius, 0, None)
    rim = 1 - 0.45 * np.exp(-depth / (0.012 * scale))
    round_shade = 0.95 + 0.3 * towards - 0.2 * (item.x**2 + item.y**2)
    shade = toy.roundness * round_shade + (1 - toy.roundness) * (1 + 0.12 * towards)
    colours = colours * np.clip(shade * rim, 0.25, 1.3)[..., None]

    alpha = np.clip(0.5 - item.distance * item.radius, 0, 1).astype(np.float32)
    offset = -light * item.radius * 0.15
    moved = cv2.warpAffine(alpha, np.column_stack([np.eye(2), offset]), alpha.shape[::-1])
    shadow = 1 - 0.5 * cv2.GaussianBlur(moved, (0, 0), item.radius * 0.08)
    return image * (shadow * (1 - alpha))[..., None] + colours * alpha[..., None]


def _photograph(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The scene as a camera sees it, with uneven light, blur and noise: (H, W, 3) uint8."""
    shape, scale = image.shape[:2], max(image.shape[:2])
    brightness = 0.75 + 0.5 * _noise(rng, shape, scale * 0.8)
    image = image * (brightness * rng.uniform(0.85, 1.1))[..., None]
    image = cv2.GaussianBlur(image, (0, 0), scale / 128 * rng.uniform(0.3, 0.8))
    noise = rng.standard_normal(image.shape, np.float32) * rng.uniform(0.005, 0.03)
    return (np.clip(image + noise, 0, 1) * 255 + 0.5).astype(np.uint8)


def _saliency(rng: np.random.Generator, seen: np.ndarray, count: int) -> np.ndarray:
    """What a saliency detector might make of the scene: (H, W) uint8.

    Borders are blobby, an object is sometimes missed or half missed, background is sometimes
    found, and no value is saturated. `seen` is (H, W) uint8: 0 background, i the i-th of `count`.
    """
    shape, scale = seen.shape, max(seen.shape)
    belief = np.zeros(shape, np.float32)
    for number in range(1, count + 1):
        fate = rng.random()
        mask = (seen == number).astype(np.float32)
        if fate < 0.06:  # missed
            mask *= rng.uniform(0, 0.3)
        elif fate < 0.2:  # half missed
            mask *= np.clip(4 * (_noise(rng, shape, scale * 0.35) - 0.45), 0.1, 1)
        belief += mask * rng.uniform(0.65, 1)
    if rng.random() < 0.25:  # something in the background looks like an object
        centre = rng.random(2) * (shape[1], shape[0])
        axes = scale * rng.uniform(0.2, 0.45, 2)
        blob = np.zeros(shape, np.float32)
        cv2.ellipse(blob, (centre, axes, rng.uniform(0, 180)), 1.0, -1)
        belief = np.maximum(belief, blob * rng.uniform(0.55, 0.95))
    soft = cv2.GaussianBlur(belief, (0, 0), scale * rng.uniform(0.02, 0.05))
    soft += 0.45 * (_noise(rng, shape, scale * 0.09) - 0.5)
    values = 1 / (1 + np.exp(-7 * (soft - 0.45)))
    values = cv2.GaussianBlur(values, (0, 0), scale * 0.012)
    return (255 * np.clip(values, 0, 1)).astype(np.uint8)


def _describe(item: _Placed, visible: np.ndarray) -> VisibleObject:
    """What the annotation says of an object of which the pixels `visible` (H, W) bool are seen."""
    left, top, width, height = cv2.boundingRect(visible.astype(np.uint8))
    box = (left, top, left + width - 1, top + height - 1)
    border = np.pad(item.mask[1:-1, 1:-1], 1)
    return VisibleObject(
        CLASSES[item.index],
        box,
        truncated=bool((item.mask & ~border).any()),
        occluded=bool((item.mask & ~visible).any()),
    )


def make_scene(entropy: Sequence[int], first: int, size: int = 112) -> Scene:
    """One scene.

    Args:
        entropy: non-negative integers that alone, with the next two, determine the scene.
        first: index in CLASSES of the class that the scene holds for certain.
        size: the longer side in pixels; the other is 0.72 to 1 of it.
    """
    rng = np.random.default_rng(list(entropy))
    short = round(size * rng.uniform(0.72, 1))
    shape = (short, size) if rng.random() < 0.6 else (size, short)
    placed = _arrange(rng, first, shape)

    angle = rng.uniform(0, 2 * np.pi)
    light = np.array([np.cos(angle), np.sin(angle)], np.float32)
    pairs = [_colour_pair(rng)]
    image = _background(rng, shape, size, pairs[0])
    for item in placed:
        pairs.append(_distinct_pair(rng, pairs))
        image = _paint(rng, image, item, pairs[-1], light, size)

    seen = _visible(placed, shape)
    labels = np.array([0, *(item.index + 1 for item in placed)], np.uint8)[seen]
    items = tuple(_describe(item, seen == number) for number, item in enumerate(placed, 1))
    saliency = _saliency(rng, seen, len(placed))
    return Scene(_photograph(rng, image), labels, saliency, items)
