"""How a picture is cut for the tiled schedule, and what is kept from pass to pass."""

from dataclasses import dataclass

from .streams import beneath, doubled, widened


@dataclass(frozen=True)
class Plan:
    """Strips of columns, and how many rows of the picture enter at once.

    Of a strip are kept, besides its part of the map at an eighth of the size: 0 nothing; 1 the map at a quarter; 2 that
    at half the size too; 3 the full-size one; 4 and the one within an output block.
    """

    strips: tuple  # of (own columns, kept)
    rows: int


def even(width, height, columns, kept, rows):
    """A plan of equal strips, at most so many columns wide."""
    count = -(-width // columns)
    edges = [round(width * place / count / 8) * 8 for place in range(count + 1)]
    return Plan(tuple(((left, right), kept) for left, right in zip(edges, edges[1:], strict=False)), rows)


@dataclass(frozen=True)
class Windows:
    """The columns that a strip computes of each map, so that its own come out exact."""

    own: tuple[int, int]
    width: int

    def around(self, columns):
        """Its own columns of a full-size map and so many beside them."""
        return widened(self.own, columns, self.width)

    def joined(self, level):
        """Of UpConv's output: at the full size what both output blocks take, below what is upsampled."""
        return self.above(level - 1) if level else self.around(4)

    def skip(self, level):
        """Of UpConv's input: the encoder's map and the upsampled one."""
        return widened(self.joined(level), 2, self.width >> level)

    def above(self, level):
        """Of the map of half the size, between which the upsampled columns lie."""
        return beneath(self.skip(level), self.width >> level + 1)

    def encoded(self, level, deepest):
        """Of the encoder's map, where it goes on down to the level `deepest`."""
        if level == deepest:
            return self.skip(level)
        return doubled(widened(self.encoded(level + 1, deepest), 2, self.width >> level + 1))
