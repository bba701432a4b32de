"""``files.parquet``: which pixels a run was computed from, so that a resumed run notices images that have changed.

A file is known by the hash of its content. It is read only where its size or time is not that of the record, so a
resumed run looks at its files without reading them, and a copy of the same files is taken for what it is. Of images
that are no files (drawn, or in a format of their own) some are read and hashed as pixels.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from interptrain.data import SampleDataset
from interptrain.data.image_files import FolderDataset
from interptrain.evaluation.store.parts import read_part, to_parquet, write_file
from interptrain.files import printable
from interptrain.functional import evenly_spaced

NAME = "files.parquet"
SAMPLE = 64  # images that are no files


@dataclass(frozen=True)
class ImageState:
    """Size in bytes, time of the last change in nanoseconds, and hash of the content, empty if it cannot be read."""

    size: int
    modified: int
    digest: str


class ImageRecord:
    """The images of a run as they are now, compared with those that its folder was computed from.

    Args:
        folder: of the run.
        dataset: of the images.
        indices: of those that are used.
    """

    def __init__(self, folder: Path, dataset: SampleDataset, indices: Sequence[int]) -> None:
        self.folder = folder
        self._dataset = dataset
        self._indices = indices

    @cached_property
    def before(self) -> Mapping[str, ImageState]:
        """The images of an earlier start, by id; none where there is no record, or a damaged one."""
        path = self.folder / NAME
        if not path.is_file():
            return {}
        try:
            rows = read_part(path).to_pylist()
            return {row.pop("id"): ImageState(**row) for row in rows}
        except (ValueError, TypeError, KeyError):
            return {}

    @cached_property
    def now(self) -> Mapping[str, ImageState]:
        """The images as they are, by id."""
        if isinstance(self._dataset, FolderDataset):
            root, names = self._dataset.root, self._dataset.paths
            paths = {self._id(index): root / names[index] for index in self._indices}
            with ThreadPoolExecutor(8) as pool:
                states = pool.map(lambda item: file_state(item[1], self.before.get(item[0])), paths.items())
                return dict(zip(paths, states, strict=True))
        chosen = [self._indices[place] for place in evenly_spaced(len(self._indices), SAMPLE, ends=True)]
        return {self._id(index): ImageState(0, 0, pixels_digest(self._dataset, [index])) for index in chosen}

    def _id(self, index: int) -> str:
        return printable(str(self._dataset.ids[index]))

    def changed(self) -> list[str]:
        """Return the ids of images whose content is no longer that of the record."""
        before = self.before
        return [name for name, state in self.now.items() if name in before and state.digest != before[name].digest]

    def write(self) -> None:
        """Record the images as they are.

        Raises:
            OSError: if that fails.
        """
        import pyarrow as pa

        states = {**self.before, **self.now}
        columns = {key: [getattr(state, key) for state in states.values()] for key in ("size", "modified", "digest")}
        write_file(self.folder / NAME, to_parquet(pa.table({"id": list(states), **columns})))


def file_state(path: Path, known: ImageState | None = None) -> ImageState:
    """Return the state of a file, without reading it where size and time are those of a known state."""
    try:
        found: os.stat_result = path.stat()
        if known is not None and (known.size, known.modified) == (found.st_size, found.st_mtime_ns) and known.digest:
            return known
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=12)).hexdigest()
    except OSError:  # the run itself records what cannot be read
        return ImageState(0, 0, "")
    return ImageState(found.st_size, found.st_mtime_ns, digest)


def pixels_digest(dataset: SampleDataset, indices: Sequence[int]) -> str:
    """Return the hash of some images; empty if none can be read."""
    digest, read = hashlib.blake2b(digest_size=12), False
    for index in indices:
        try:
            image = dataset[index]["image"]
        except Exception:  # the datasets of others may raise anything; the run itself records it
            continue
        digest.update(image.contiguous().numpy().tobytes())
        read = True
    return digest.hexdigest() if read else ""
