"""Draw the demo's radiographs anew: python -m tools.phantom --out FOLDER [--data FOLDER]."""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from tools.phantom import likeness
from tools.phantom.child import CHILDREN
from tools.phantom.exposure import radiograph

QUALITY = 90
"""Of the JPEG files; one for all, so that the encoding tells nothing."""


def main() -> None:
    """Write one JPEG file per child; with --data, say how like they are to the nearest real radiograph."""
    parser = argparse.ArgumentParser(prog="python -m tools.phantom", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--data", type=Path, help="labelled radiographs to compare with; nothing of them is kept")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    drawings = {name: radiograph(child) for name, child in CHILDREN.items()}
    for name, pixels in drawings.items():
        Image.fromarray(pixels).save(arguments.out / f"{name}.jpg", quality=QUALITY)
    if arguments.data is None:
        return
    found = likeness.measure(drawings, arguments.data)
    for name, correlation in found.drawn.items():
        print(f"{name}: nearest real radiograph, correlation {correlation:.3f}")
    print("different children: median {:.3f}, highest {:.3f}".format(*found.between_children))


if __name__ == "__main__":
    main()
