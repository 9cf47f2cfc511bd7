"""Draw the README's picture, four phantoms with their opacities framed: `python docs/draw_phantoms.py`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import cv2
import numpy as np

from cxr.data.phantom.dataset import draw_dataset
from cxr.files import BOXES_FILE

SIDE = 420
VERMILLION = (0, 94, 213)
CHOSEN = ("normal", "bacteria", "virus", "bacteria")


def main() -> None:
    """Write docs/phantoms.jpeg."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_dataset(folder, images=40, seed=0)
        facts = json.loads((folder / BOXES_FILE).read_text(encoding="utf-8"))
        tiles = []
        used: set[str] = set()
        for subtype in CHOSEN:
            path = next(path for path, fact in facts.items() if fact["subtype"] == subtype and path not in used)
            used.add(path)
            image = cv2.imread(str(folder / path), cv2.IMREAD_COLOR)
            scale = SIDE / image.shape[0], SIDE / image.shape[1]
            tile = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            for x, y, width, height in facts[path]["boxes"]:
                corner = round(x * scale[1]), round(y * scale[0])
                opposite = round((x + width) * scale[1]), round((y + height) * scale[0])
                cv2.rectangle(tile, corner, opposite, VERMILLION, 2, cv2.LINE_AA)
            tiles.append(tile)
    cv2.imwrite(str(Path(__file__).with_name("phantoms.jpeg")), np.hstack(tiles), [cv2.IMWRITE_JPEG_QUALITY, 80])


if __name__ == "__main__":
    main()
