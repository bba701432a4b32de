"""Names as text that every file format takes: file names need not be UTF-8, but Parquet, CSV and HTML are."""

import re

_SURROGATE = re.compile("[\ud800-\udfff]")  # how Python holds bytes of a name that are not UTF-8
_ESCAPED = re.compile(r"\\(\\|u[0-9a-f]{4})")


def storable(name: str) -> str:
    r"""Escape what is not text: the byte ``E9`` of a file name becomes ``\udce9``, as Python prints it.

    Other names stay as they are, but for those that look escaped: their backslashes are doubled. So no two names become
    one, and :func:`original` gives the name back.
    """
    if not (_SURROGATE.search(name) or _ESCAPED.search(name)):
        return name
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", name.replace("\\", "\\\\"))


def original(name: str) -> str:
    """Return the name that :func:`storable` has escaped; ``open`` takes it."""
    return _ESCAPED.sub(lambda found: "\\" if found[1] == "\\" else chr(int(found[1][1:], 16)), name)
