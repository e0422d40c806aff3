#!/usr/bin/env python3
"""Renders the demo's labelled images: one glyph each, distorted, noisy and on clutter.

An image is a pure function of (seed, index, label) and of the installed fonts: the same seed gives
the same bytes with the same versions of Pillow, FreeType, numpy and the font packages. What happens
to a glyph, in this order:

1. font        one of FONTS, or one of HELD_OUT_FONTS too where the set allows them
2. geometry    rotation, size, stretch, shear, perspective, shift, then a smooth elastic field
3. background  a gradient between two colours, covered with lines, boxes and ellipses
4. neighbours  parts of other glyphs that reach in from left and right, as in a line of text
5. ink         one colour that keeps its luma away from the background's
6. damage      scratches and patches across the glyph
7. sensor      exposure, blur, Gaussian noise, then LEVELS grey levels per channel (which also
               lets the images compress: the noise of a full 8-bit image would not)

Run as a script it writes the two sets that are part of the checkout:

    python3 demo/generate.py                      # demo/data/{calibration,test}.npz
    python3 demo/generate.py --sheet samples.png  # a contact sheet of the test set's start, too
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import math
import os
import pathlib

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Digits and capitals, without the pairs that no reader tells apart out of context: 0/O and 1/I.
CLASSES = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"

SIZE = 32  # pixels a side
LEVELS = 16  # grey levels per channel in the finished image

DATA_FOLDER = pathlib.Path(__file__).resolve().parent / "data"
FONT_FOLDER = pathlib.Path("/usr/share/fonts")

# Seen in every set.
FONTS = (
    "opentype/comic-neue/ComicNeue-Bold.otf",
    "opentype/courier-prime/Courier Prime.otf",
    "opentype/dancingscript/DancingScript-Bold.otf",
    "opentype/jura/Jura-Medium.otf",
    "opentype/league-spartan/LeagueSpartan-Black.otf",
    "opentype/lobstertwo/LobsterTwo-Bold.otf",
    "opentype/roboto/slab/RobotoSlab-Bold.otf",
    "opentype/roboto/slab/RobotoSlab-Light.otf",
    "opentype/yanone-kaffeesatz/YanoneKaffeesatz-Regular.otf",
    "truetype/dejavu/DejaVuSans-Bold.ttf",
    "truetype/dejavu/DejaVuSans.ttf",
    "truetype/dejavu/DejaVuSansMono.ttf",
    "truetype/dejavu/DejaVuSerif.ttf",
    "truetype/dustin/Domestic_Manners.ttf",
    "truetype/dustin/Dustismo_Roman_Italic.ttf",
    "truetype/dustin/PenguinAttack.ttf",
    "truetype/essays1743/Essays1743.ttf",
    "truetype/femkeklaver/femkeklaver.ttf",
    "truetype/fonts-oldstandard/OldStandard-Italic.ttf",
    "truetype/freefont/FreeMonoBold.ttf",
    "truetype/freefont/FreeSansOblique.ttf",
    "truetype/freefont/FreeSerifItalic.ttf",
    "truetype/humor-sans/Humor-Sans.ttf",
    "truetype/inconsolata/Inconsolata.otf",
    "truetype/liberation/LiberationMono-Regular.ttf",
    "truetype/liberation/LiberationSans-Bold.ttf",
    "truetype/liberation/LiberationSerif-BoldItalic.ttf",
    "truetype/liberation/LiberationSerif-Regular.ttf",
    "truetype/ocr-a/OCRA.ttf",
    "truetype/tomsontalks/TomsonTalks.ttf",
    "truetype/vollkorn/Vollkorn-Black.ttf",
)

# Seen in the test set alone.
HELD_OUT_FONTS = (
    "opentype/bebas-neue/BebasNeue-Regular.otf",
    "opentype/cabin/Cabin-Medium.otf",
    "opentype/quattrocento/Quattrocento-Regular.otf",
    "opentype/sortsmill/GoudyBookletter1911.otf",
    "truetype/averia-gwf/AveriaSerifGWF-Bold.ttf",
    "truetype/breip/Breip.ttf",
)


@dataclasses.dataclass(frozen=True)
class DataSet:
    """What to render: `count` images, the classes in equal shares, in an order set by `seed`."""

    seed: int
    count: int
    held_out_fonts: bool = False

    @property
    def fonts(self) -> tuple[str, ...]:
        return FONTS + HELD_OUT_FONTS if self.held_out_fonts else FONTS

    def labels(self) -> np.ndarray:
        """Returns the `count` labels, int64."""
        in_turn = np.arange(self.count, dtype=np.int64) % len(CLASSES)
        return np.random.default_rng(self.seed).permutation(in_turn)


TRAINING = DataSet(seed=1, count=48_000)
CALIBRATION = DataSet(seed=2, count=320)
TEST = DataSet(seed=3, count=1_536, held_out_fonts=True)

# Everything up to the sensor is drawn on a canvas of this many pixels a side, then averaged down.
# Coordinates on it run from -1 to 1 in both directions.
_CANVAS = 2 * SIZE
_GLYPH_FILLS = 0.75  # how much of its square in the atlas the longer side of a glyph takes


@functools.cache
def load_atlas(fonts: tuple[str, ...]) -> np.ndarray:
    """Draws every class in every font, centred and as large as fits.

    Returns: float32 [font, class, _CANVAS, _CANVAS], 0 is paper and 1 is ink.
    Raises: FileNotFoundError naming the font that isn't installed.
    """
    atlas = np.zeros((len(fonts), len(CLASSES), _CANVAS, _CANVAS), np.float32)
    for row, name in zip(atlas, fonts):
        path = FONT_FOLDER / name
        if not path.exists():
            raise FileNotFoundError(f"font not installed: {path}")
        for cell, character in zip(row, CLASSES):
            cell[:] = _draw_glyph(path, character)
    return atlas


def _draw_glyph(path: pathlib.Path, character: str) -> np.ndarray:
    # The basic layout engine is always there; Raqm, Pillow's default, is only where it's installed.
    def face(points):
        return ImageFont.truetype(path, points, layout_engine=ImageFont.Layout.BASIC)

    left, top, right, bottom = face(200).getbbox(character)
    font = face(200 * _GLYPH_FILLS * _CANVAS / max(right - left, bottom - top))
    left, top, right, bottom = font.getbbox(character)
    image = Image.new("L", (_CANVAS, _CANVAS))
    at = ((_CANVAS - left - right) / 2, (_CANVAS - top - bottom) / 2)
    ImageDraw.Draw(image).text(at, character, font=font, fill=255)
    return np.asarray(image, np.float32) / 255


@dataclasses.dataclass(frozen=True)
class Pose:
    """Where and how a glyph lies on the canvas; lengths are in canvas coordinates (-1..1)."""

    angle: float  # radians, clockwise
    scale: float  # 1 leaves the glyph as large as it is in the atlas
    stretch: float  # width over height
    shear: float
    tilt: tuple[float, float]  # perspective: how fast size changes along x and y
    shift: tuple[float, float]
    elastic: float  # standard deviation of the displacement field

    @staticmethod
    def random(rng: np.random.Generator) -> "Pose":
        return Pose(
            angle=math.radians(rng.normal(0, 8)),
            scale=rng.uniform(0.8, 1.15),
            stretch=rng.uniform(0.75, 1.2),
            shear=rng.normal(0, 0.15),
            tilt=tuple(rng.normal(0, 0.12, 2)),
            shift=tuple(rng.uniform(-0.15, 0.15, 2)),
            elastic=rng.uniform(0.0, 0.06),
        )

    def beside(self, dx: float) -> "Pose":
        """Returns the pose of the glyph `dx` further along the same line of text."""
        x, y = self.shift
        shift = (x + dx * math.cos(self.angle), y + dx * math.sin(self.angle))
        return dataclasses.replace(self, shift=shift)


def _warp(glyph: np.ndarray, pose: Pose, rng: np.random.Generator) -> np.ndarray:
    """Lays a glyph on the canvas, asking for each pixel of the canvas where in the glyph it is."""
    ticks = (np.arange(_CANVAS, dtype=np.float32) + 0.5) * 2 / _CANVAS - 1
    x, y = np.meshgrid(ticks - pose.shift[0], ticks - pose.shift[1])
    x = x + pose.elastic * _smooth_field(rng)
    y = y + pose.elastic * _smooth_field(rng)
    depth = np.maximum(1 + pose.tilt[0] * x + pose.tilt[1] * y, 0.3) * pose.scale
    cos, sin = math.cos(pose.angle), math.sin(pose.angle)
    along, across = (cos * x + sin * y) / depth, (cos * y - sin * x) / depth
    return _sample(glyph, (along + pose.shear * across) / pose.stretch, across)


def _smooth_field(rng: np.random.Generator) -> np.ndarray:
    """Returns smooth unit noise over the canvas: a coarse grid, interpolated."""
    grid = Image.fromarray(rng.normal(0, 1, (5, 5)).astype(np.float32))
    return np.asarray(grid.resize((_CANVAS, _CANVAS), Image.Resampling.BICUBIC))


def _sample(glyph: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Samples a glyph bilinearly at coordinates of -1..1; outside there is paper, as on its rim."""
    column = np.clip((x + 1) * (_CANVAS / 2) - 0.5, 0, _CANVAS - 1.001)
    row = np.clip((y + 1) * (_CANVAS / 2) - 0.5, 0, _CANVAS - 1.001)
    left, top = column.astype(np.intp), row.astype(np.intp)
    dx, dy = column - left, row - top
    flat, at = glyph.ravel(), top * _CANVAS + left
    upper = flat[at] * (1 - dx) + flat[at + 1] * dx
    lower = flat[at + _CANVAS] * (1 - dx) + flat[at + _CANVAS + 1] * dx
    return upper * (1 - dy) + lower * dy


def _luma(colour: np.ndarray) -> float:
    return float(0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2])


def _ink_colour(rng: np.random.Generator, paper: np.ndarray, contrast: float) -> np.ndarray:
    """Returns a random colour whose luma is at least `contrast` from the paper's.

    Requires: contrast < 0.5, or a paper of medium grey would leave no colour.
    """
    while True:
        colour = rng.uniform(0, 1, 3)
        if abs(_luma(colour) - _luma(paper)) >= contrast:
            return colour


def _to_rgb(colour: np.ndarray) -> tuple[int, ...]:
    return tuple(int(c) for c in np.clip(colour * 255, 0, 255))


def _draw_shape(draw: ImageDraw.ImageDraw, rng: np.random.Generator, colour: np.ndarray) -> None:
    """Draws a line, an outlined box or a filled ellipse somewhere on the canvas."""
    x0, y0, x1, y1 = rng.integers(-8, _CANVAS + 8, 4).tolist()
    box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    width = int(rng.integers(2, 6))
    match rng.integers(3):
        case 0:
            draw.line((x0, y0, x1, y1), fill=_to_rgb(colour), width=width)
        case 1:
            draw.rectangle(box, outline=_to_rgb(colour), width=width)
        case _:
            draw.ellipse(box, fill=_to_rgb(colour))


def _paint_background(rng: np.random.Generator, paper: np.ndarray) -> np.ndarray:
    """Returns [_CANVAS, _CANVAS, 3] of 0..1: a gradient around `paper` with clutter on it."""
    ends = paper + rng.normal(0, 0.08, (2, 2, 3))
    corners = Image.fromarray(np.uint8(np.clip(ends * 255, 0, 255)))
    image = corners.resize((_CANVAS, _CANVAS), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(1, 7)):
        _draw_shape(draw, rng, paper + rng.normal(0, 0.12, 3))
    return np.asarray(image, np.float32) / 255


def _damage(canvas: np.ndarray, rng: np.random.Generator, paper: np.ndarray) -> np.ndarray:
    """Draws scratches of any colour and a patch of paper over the finished scene."""
    image = Image.fromarray(np.uint8(np.clip(canvas * 255, 0, 255)))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.choice(3, p=(0.6, 0.3, 0.1))):
        ends = rng.integers(0, _CANVAS, 4).tolist()
        draw.line(ends, fill=_to_rgb(rng.uniform(0, 1, 3)), width=int(rng.integers(2, 5)))
    if rng.random() < 0.2:
        x, y = rng.integers(12, _CANVAS - 24, 2).tolist()
        width, height = rng.integers(6, 13, 2).tolist()
        draw.rectangle((x, y, x + width, y + height), fill=_to_rgb(paper))
    return np.asarray(image, np.float32) / 255


def _expose(scene: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turns [SIZE, SIZE, 3] of 0..1 into what a poor camera makes of it: uint8 [3, SIZE, SIZE]."""
    image = (scene - 0.5) * rng.uniform(0.7, 1.1) + 0.5 + rng.normal(0, 0.06)
    blur = rng.uniform(0, 0.33)  # of each of the two neighbours, along either axis
    for axis in (0, 1):
        neighbours = np.roll(image, 1, axis) + np.roll(image, -1, axis)
        image = (1 - 2 * blur) * image + blur * neighbours
    image = image + rng.normal(0, rng.uniform(0.01, 0.05), image.shape)
    levels = np.rint(np.clip(image, 0, 1) * (LEVELS - 1))
    return np.uint8(levels * (255 // (LEVELS - 1))).transpose(2, 0, 1)


def render(rng: np.random.Generator, atlas: np.ndarray, label: int) -> np.ndarray:
    """Renders one image of the class `label`: uint8 [3, SIZE, SIZE]."""
    font = atlas[rng.integers(len(atlas))]
    pose = Pose.random(rng)
    ink = _warp(font[label], pose, rng)
    for side in (-1, 1):
        if rng.random() < 0.5:
            neighbour = font[rng.integers(len(CLASSES))]
            beside = pose.beside(side * pose.scale * rng.uniform(1.3, 1.7))
            ink = np.maximum(ink, _warp(neighbour, beside, rng))

    paper = rng.uniform(0, 1, 3)
    canvas = _paint_background(rng, paper)
    colour = _ink_colour(rng, paper, contrast=rng.uniform(0.3, 0.42))
    canvas = canvas + ink[..., np.newaxis] * (colour.astype(np.float32) - canvas)
    canvas = _damage(canvas, rng, paper)
    scene = canvas.reshape(SIZE, 2, SIZE, 2, 3).mean((1, 3))
    return _expose(scene, rng)


def _render_range(data_set: DataSet, labels: np.ndarray, start: int) -> np.ndarray:
    atlas = load_atlas(data_set.fonts)
    images = [
        render(np.random.default_rng((data_set.seed, start + i)), atlas, label)
        for i, label in enumerate(labels.tolist())
    ]
    return np.stack(images)


def render_set(data_set: DataSet, processes: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Renders a whole set; the result doesn't depend on `processes` (as many as there are CPUs).

    Returns: the images, uint8 [count, 3, SIZE, SIZE], and their labels, int64 [count].
    """
    labels = data_set.labels()
    load_atlas(data_set.fonts)  # before the fork, so that the processes share it
    starts = range(0, data_set.count, 512)
    with concurrent.futures.ProcessPoolExecutor(processes or os.cpu_count()) as pool:
        parts = [pool.submit(_render_range, data_set, labels[s : s + 512], s) for s in starts]
        images = np.concatenate([part.result() for part in parts])
    return images, labels


def write_set(data_set: DataSet, path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Renders a set into an npz file of `inputs` and `labels`, and returns the two."""
    images, labels = render_set(data_set)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, inputs=images, labels=labels)
    print(f"{path}: {len(images):,} images, {path.stat().st_size:,} bytes", flush=True)
    return images, labels


def contact_sheet(images: np.ndarray, columns: int = 32) -> Image.Image:
    """Lays images out in rows of `columns`, dropping a last row that would not be full."""
    rows = len(images) // columns
    grid = images[: rows * columns].reshape(rows, columns, 3, SIZE, SIZE)
    return Image.fromarray(grid.transpose(0, 3, 1, 4, 2).reshape(rows * SIZE, columns * SIZE, 3))


def main() -> None:
    parser = argparse.ArgumentParser(description="Render the demo's calibration and test sets.")
    parser.add_argument("--out", type=pathlib.Path, default=DATA_FOLDER, help="folder to write to")
    parser.add_argument("--sheet", type=pathlib.Path, help="PNG of the first 128 test images")
    arguments = parser.parse_args()

    write_set(CALIBRATION, arguments.out / "calibration.npz")
    images, _ = write_set(TEST, arguments.out / "test.npz")
    if arguments.sheet:
        contact_sheet(images[:128]).save(arguments.sheet, optimize=True)


if __name__ == "__main__":
    main()
