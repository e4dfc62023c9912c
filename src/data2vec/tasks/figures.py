"""Drawings for a page that needs nothing from elsewhere: pictures as data, everything else as SVG."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt
from PIL import Image

from data2vec.data.labelled.example import Turn
from data2vec.processing.waveform import Wave

Floats = npt.NDArray[np.floating]
_HEAT = np.array([(20, 11, 53), (101, 21, 110), (188, 55, 84), (243, 120, 25), (252, 255, 164)], dtype=np.float64)
"""Dark to bright, evenly spaced: colours of matplotlib's inferno (CC0)."""

STYLE = """figure{display:inline-block;margin:.4em .9em .4em 0;vertical-align:top}
figcaption{font-size:12px;color:#555;max-width:60em}figure img,figure svg{display:block;max-width:100%}
svg text{font:11px system-ui,sans-serif;fill:#333}.look{border-top:1px solid #ddd;padding:.6em 0}
.key{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 .9em;border-radius:2px}"""


def figure(content: str, caption: str = "") -> str:
    """Something with a line below it."""
    return f"<figure>{content}<figcaption>{escape(caption)}</figcaption></figure>"


def picture(image: Image.Image, width: int = 0) -> str:
    """A picture as an ``img``, small ones enlarged to `width` pixels with sharp edges."""
    file = io.BytesIO()
    image.save(file, format="PNG" if image.width * image.height < 40_000 else "JPEG", quality=88)
    data = base64.b64encode(file.getvalue()).decode()
    sharp = ";image-rendering:pixelated" if image.width * 2 < width else ""
    style = f' style="width:{width}px{sharp}"' if width else ""
    return f'<img alt="" src="data:image/{"png" if data[:5] == "iVBOR" else "jpeg"};base64,{data}"{style}>'


def palette(classes: int = 256) -> npt.NDArray[np.uint8]:
    """(classes, 3) uint8 colours far from one another (hues by the golden ratio)."""
    hues = (np.arange(classes) * 0.618034) % 1
    bright = 160 + 70 * (np.arange(classes) % 2)
    hsv = np.stack([hues * 255, np.full(classes, 180), bright], axis=1).astype(np.uint8)
    colours: npt.NDArray[np.uint8] = np.asarray(Image.fromarray(hsv[None], "HSV").convert("RGB"))[0]
    return colours


def hexes(classes: int) -> list[str]:
    """`palette` as CSS has colours."""
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in palette()[:classes].tolist()]


def legend(names: Sequence[str]) -> str:
    """Names with their colours."""
    keys = zip(names, hexes(len(names)), strict=False)
    return "<p>" + "".join(f'<span class="key" style="background:{c}"></span>{escape(n)}' for n, c in keys) + "</p>"


def laid_over(image: Image.Image, labels: npt.NDArray[np.uint8], strength: float = 0.55) -> Image.Image:
    """A picture with the colours of a map of classes laid over."""
    colours = Image.fromarray(palette()[labels], "RGB").resize(image.size, Image.Resampling.NEAREST)
    return Image.blend(image.convert("RGB"), colours, strength)


def heat(values: Floats) -> npt.NDArray[np.uint8]:
    """(..., 3) colours of values in 0..1, dark to bright."""
    place = np.clip(values, 0, 1) * (len(_HEAT) - 1)
    steps = np.arange(len(_HEAT))
    return np.stack([np.interp(place, steps, _HEAT[:, c]) for c in range(3)], axis=-1).astype(np.uint8)


def heated(image: Image.Image, weights: Floats) -> Image.Image:
    """A picture lit where (rows, columns) `weights` are high, the highest being brightest."""
    share = (weights / max(float(weights.max()), 1e-12)).astype(np.float32)
    light = Image.fromarray(share).resize(image.size, Image.Resampling.BICUBIC)
    return Image.blend(image.convert("L").convert("RGB"), Image.fromarray(heat(np.asarray(light))), 0.6)


def spectrogram(wave: Wave, rate: int, bands: int = 96) -> Image.Image:
    """Loudness by mel band (low ones at the bottom), a column every 10 ms; dark is loud, over 65 dB."""
    size, hop = round(0.025 * rate), round(0.01 * rate)
    wave = np.pad(wave, (size // 2, size))
    frames = np.lib.stride_tricks.sliding_window_view(wave, size)[::hop] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames, n=1024 if rate >= 16_000 else 512, axis=1)) ** 2
    highest = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, highest, bands + 1) / 2595) - 1)
    sums = np.concatenate([np.zeros((len(power), 1)), power.cumsum(axis=1)], axis=1)
    place = edges / (rate / 2) * (sums.shape[1] - 1)
    upto = np.stack([np.interp(place, np.arange(sums.shape[1]), row) for row in sums])
    loud = 10 * np.log10(np.diff(upto, axis=1) / np.diff(place) + 1e-10)
    dark = np.clip((loud - loud.max() + 65) / 65, 0, 1)
    return Image.fromarray((255 * (1 - dark.T[::-1])).astype(np.uint8))


Track = tuple[str, Sequence[Turn]]


def over_time(image: Image.Image, seconds: float, tracks: Sequence[Track] = (), curve: Floats | None = None) -> str:
    """A spectrogram with what happens below it: rows of names in time, and a curve over all of it."""
    width, height, row, left = min(960.0, max(360.0, 220 * seconds)), 150.0, 20.0, 70.0
    names = sorted({turn.label for _, turns in tracks for turn in turns})
    colour = dict(zip(names, hexes(len(names)), strict=True)) if len(names) <= 12 else {}
    parts, y = [_embedded(image, left, 0, width, height)], height + 4
    if curve is not None:
        parts.append(_curve(curve, left, y, width, 2 * row))
        parts.append(f'<text x="{left - 6:g}" y="{y + row + 4:g}" text-anchor="end">attention</text>')
        y += 2 * row + 4
    for name, turns in tracks:
        parts.append(f'<text x="{left - 6:g}" y="{y + 14:g}" text-anchor="end">{escape(name)}</text>')
        parts += [_span(turn, left, y, width / seconds, row - 2, colour.get(turn.label, "#8aa")) for turn in turns]
        y += row
    for second in np.arange(0, seconds + 1e-9, _step(seconds)):
        x = left + width * second / seconds
        parts.append(f'<text x="{x:.1f}" y="{y + 14:g}" text-anchor="middle">{second:g}</text>')
    parts.append(f'<text x="{left - 16:g}" y="{y + 14:g}" text-anchor="end">seconds</text>')
    whole = f"{left + width + 14:.0f} {y + 20:.0f}"
    return f'<svg width="{left + width + 14:.0f}" viewBox="0 0 {whole}" role="img">{"".join(parts)}</svg>'


def _embedded(image: Image.Image, x: float, y: float, width: float, height: float) -> str:
    source = picture(image).split('src="')[1].split('"')[0]
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" preserveAspectRatio="none"'
    return f'<image {place} href="{source}"/>'


def _span(turn: Turn, left: float, y: float, scale: float, height: float, colour: str) -> str:
    x, wide = left + turn.start * scale, max(2.0, (turn.end - turn.start) * scale)
    shown = (
        f'<rect x="{x:.1f}" y="{y:g}" width="{wide:.1f}" height="{height:g}" rx="2" fill="{colour}" fill-opacity=".5"/>'
    )
    title = f"<title>{escape(turn.label)} {turn.start:.2f} to {turn.end:.2f} s</title>"
    text = f'<text x="{x + wide / 2:.1f}" y="{y + 13:g}" text-anchor="middle">{escape(turn.label)}</text>'
    return f"<g>{title}{shown}{text if wide >= 6.5 * len(turn.label) else ''}</g>"


def _curve(values: Floats, left: float, y: float, width: float, height: float) -> str:
    tall = values / max(float(values.max()), 1e-12) * height
    step = width / len(values)
    tops = [(left + (i + 0.5) * step, y + height - v) for i, v in enumerate(tall.tolist())]
    right = left + width
    whole = [(left, y + height), (left, tops[0][1]), *tops, (right, tops[-1][1]), (right, y + height)]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in whole)
    return f'<polygon points="{points}" fill="#bc3754" fill-opacity=".35" stroke="#bc3754"/>'


def _step(seconds: float) -> float:
    return next((step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10) if seconds / step <= 10), 30.0)


def matrix(names: Sequence[str], values: Floats) -> str:
    """A square of shares (0..1) of each row, white to blue by their square root."""
    cell, room = 14, 8 + 7 * max(map(len, names))
    size = room + cell * len(names) + 4
    parts = []
    for i, name in enumerate(names):
        middle = room + cell * i + 11
        parts.append(f'<text x="{room - 5}" y="{middle}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<text transform="translate({middle},{room - 5}) rotate(-90)">{escape(name)}</text>')
        for j, share in enumerate(values[i].tolist()):
            place = f'x="{room + cell * j}" y="{room + cell * i}" width="{cell - 1}" height="{cell - 1}"'
            title = f"<title>{escape(name)} to {escape(names[j])}: {share:.3f}</title>"
            parts.append(f'<rect {place} fill="#1e64c8" fill-opacity="{share**0.5:.2f}">{title}</rect>')
    return f'<svg width="{size}" viewBox="0 0 {size} {size}" role="img">{"".join(parts)}</svg>'


def scatter(points: Floats, labels: Sequence[str], size: int = 460) -> str:
    """(N, 2) points, coloured and named by label."""
    names = sorted(set(labels))
    colours = dict(zip(names, hexes(len(names)), strict=True))
    low, span = points.min(axis=0), np.ptp(points, axis=0).max() or 1.0
    places = 12 + (points - low) / span * (size - 24)
    height = float(places[:, 1].max()) + 12
    dots = [
        f'<circle cx="{x:.1f}" cy="{height - y:.1f}" r="3.5" fill="{colours[name]}" fill-opacity=".75">'
        f"<title>{escape(name)}</title></circle>"
        for (x, y), name in zip(places.tolist(), labels, strict=True)
    ]
    shown = legend(names) if 1 < len(names) <= 24 else ""
    frame = f'<rect width="{size}" height="{height:.0f}" fill="none" stroke="#ddd"/>'
    box = f'<svg width="{size}" viewBox="0 0 {size} {height:.0f}" role="img">'
    return f"{box}{frame}{''.join(dots)}</svg>{shown}"


def plane(vectors: Floats) -> Floats:
    """(N, D) vectors to the (N, 2) plane of their greatest variance (PCA)."""
    centred = vectors - vectors.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    flat: Floats = centred @ axes[:2].T
    return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
