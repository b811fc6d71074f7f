# SPDX-License-Identifier: Apache-2.0
"""Pictures of boxes on a grid with lines between them, as SVG."""

from __future__ import annotations

import dataclasses

Place = tuple[float, float]  # column and row


@dataclasses.dataclass(frozen=True)
class Grid:
    pitch: int  # from column to column
    step: int  # from row to row
    width: int  # of a box
    height: int

    def size(self, last: Place) -> tuple[int, int]:
        """Width and height of a picture whose last column and row are LAST."""
        return round(20 + last[0] * self.pitch + self.width), round(20 + last[1] * self.step + self.height)

    def middle(self, place: Place) -> tuple[float, float]:
        column, row = place
        return 10 + column * self.pitch + self.width / 2, 10 + row * self.step + self.height / 2

    def border(self, place: Place, towards: Place) -> tuple[float, float]:
        """Where a line from the box at PLACE to the one at TOWARDS leaves it."""
        (x, y), (to_x, to_y) = self.middle(place), self.middle(towards)
        dx, dy = to_x - x, to_y - y
        scale = min(self.width / 2 / abs(dx) if dx else 9e9, self.height / 2 / abs(dy) if dy else 9e9)
        return x + dx * scale, y + dy * scale

    def line(self, start: Place, end: Place) -> tuple[tuple[float, float], tuple[float, float]]:
        """The ends of a line from box to box."""
        return self.border(start, end), self.border(end, start)

    def box(self, place: Place, colour: str) -> str:
        x, y = self.middle(place)
        return (
            f'<rect x="{x - self.width / 2:.0f}" y="{y - self.height / 2:.0f}" width="{self.width}"'
            f' height="{self.height}" rx="7" fill="{colour}" stroke="#555"/>'
        )
