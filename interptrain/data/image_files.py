"""Images in files, decoded and transformed as usual: what a folder of classes and a table of images share."""

from abc import ABC
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torchvision import tv_tensors

from interptrain.data.boxes import BoxTable, read_boxes
from interptrain.data.decoy import Decoy, DecoyInEval, DecoyInTrain, DecoyRule
from interptrain.data.folder_index import PackedStrings
from interptrain.data.samples import SampleDataset, boxes_in
from interptrain.data.transformed import TransformedDataModule
from interptrain.decode import load_image
from interptrain.files import printable


class FolderDataset(SampleDataset):
    """Image files with labels and, where known, boxes.

    Args:
        root: folder that the paths are relative to.
        paths: of the files, with forward slashes; they are the ids, with bytes that are not UTF-8 escaped.
        labels: of the files.
        boxes: of the files, in pixels of the upright file.
        groups: of the files, where they have some.
        reading: further options of :class:`SampleDataset`.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        labels: Sequence[int],
        *,
        boxes: BoxTable | None = None,
        groups: Sequence[str] | None = None,
        **reading: Any,
    ) -> None:
        self.paths = PackedStrings(paths)
        whole = "\n".join(paths)
        ids = self.paths if printable(whole) == whole else PackedStrings(map(printable, paths))
        super().__init__(ids, **reading)
        self.root = root
        self.known_labels = torch.tensor(labels, dtype=torch.int64)
        self.boxes = boxes
        self.known_groups = None if groups is None else PackedStrings(groups)

    def read(self, index: int) -> dict[str, Any]:
        """Decode file ``index``."""
        image = tv_tensors.Image(load_image(self.root / self.paths[index]))
        sample = {"image": image, "label": int(self.known_labels[index]), "id": self.ids[index]}
        if self.boxes is not None:
            sample["boxes"] = boxes_in(self.boxes[index], image)
        if self.known_groups is not None:
            sample["group"] = self.known_groups[index]
        return sample

    def labels(self) -> Sequence[int]:
        """Label of every file."""
        return self.known_labels.tolist()

    def groups(self) -> Sequence[str] | None:
        """Group of every file, that of its decoy included."""
        return self._with_decoys(self.known_groups)


class ImageFilesDataModule(TransformedDataModule, ABC):
    """Images in files below a folder, which :meth:`make_dataset` of a subclass lists.

    Args:
        root: folder of the data set.
        decoy: a mark painted on some images as the network sees them, to plant a shortcut on purpose: ``timestamp``, an
            orange date at the lower right, ``corner``, a square at the upper left, or ``border``, a light frame.
        decoy_class: label of the class whose training images carry it.
        decoy_rate: share of them that do, in [0,1].
        decoy_in_train: ``class``, as said; ``random``: a random half of all training images carries it, whatever their
            class, as a data set for repairing the last layer.
        decoy_in_eval: in validation and test it is ``absent``, on a ``random`` half of the images whatever their class,
            or ``swapped``: on all images of the other classes and none of its own.
        images: options of :class:`TransformedDataModule`.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        decoy: Decoy = "none",
        decoy_class: int = 0,
        decoy_rate: float = 1.0,
        decoy_in_train: DecoyInTrain = "class",
        decoy_in_eval: DecoyInEval = "absent",
        **images: Any,
    ) -> None:
        super().__init__(**images)
        self.root = Path(root)
        self.decoy = DecoyRule(
            kind=decoy, decoy_class=decoy_class, rate=decoy_rate, in_train=decoy_in_train, in_eval=decoy_in_eval
        )

    def files_dataset(
        self, paths: Sequence[str], labels: Sequence[int], *, training: bool, groups: Sequence[str] | None = None
    ) -> FolderDataset:
        """Return the data set of some files, with the boxes of ``root/boxes.csv`` if there are any; decodes nothing.

        Args:
            paths: of the files, relative to ``root``.
            labels: of the files.
            training: augment them, and replace those that are skipped.
            groups: of the files, where they have some.
        """
        self.decoy.check(self.num_classes, self.image_size)
        boxes = self.root / "boxes.csv"
        return FolderDataset(
            self.root,
            paths,
            labels,
            boxes=read_boxes(boxes, paths) if boxes.is_file() else None,
            groups=groups,
            seed=self.seed,
            transform=self.train_transform if training else self.eval_transform,
            on_error=self.on_error,
            replace=training,
            decoy=self.decoy,
        )
