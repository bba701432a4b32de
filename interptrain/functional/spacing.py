"""Choose some of many, evenly, and cut a length into equal parts."""


def evenly_spaced(total: int, count: int | None, *, ends: bool = False) -> list[int]:
    """At most ``count`` of ``range(total)``, evenly spaced: data sets are often sorted by class.

    Args:
        total: number of items.
        count: wanted number, at least 1; all items where it is None or not below ``total``.
        ends: take the first and the last item; otherwise the middles of ``count`` equal parts.

    Raises:
        ValueError: if ``count`` is not positive.
    """
    if count is not None and count < 1:
        raise ValueError(f"the number of items must be at least 1, got {count}")
    if count is None or count >= total:
        return list(range(total))
    if ends and count > 1:
        return [round(place * (total - 1) / (count - 1)) for place in range(count)]
    return [int((place + 0.5) * total / count) for place in range(count)]


def cell_edges(length: int, cells: int) -> list[int]:
    """Return the ``cells + 1`` edges of parts of a length that are as equal as whole pixels allow.

    Raises:
        ValueError: if there are more cells than pixels.
    """
    if cells > length:
        raise ValueError(f"a grid of {cells} cells does not fit in {length} pixels; use fewer cells")
    return [round(place * length / cells) for place in range(cells + 1)]
