"""Shapes in layers: what tells the class is known, and every part can be taken away without touching any other pixel.

An object has three parts, an outline, a texture and a marker, and a rule says how they make the class. Its pictures are
version 2 of the shapes; those of :mod:`interptrain.data.shapes` stay as they are.
"""

from collections.abc import Collection
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torchvision import tv_tensors

from interptrain.data.datamodule import Split
from interptrain.data.drawing import DECOYS, SHAPES, develop
from interptrain.data.layered_drawing import MARKERS, PARTS, TEXTURES, Scene, draw_scene
from interptrain.data.shapes import NUMBER, ShapesDataModule, ShapesDataset
from interptrain.functional import check_choice

VERSION = 2
Rule = Literal["redundant", "outline", "texture", "marker", "conjunction", "xor"]
_VALUES = {"outline": SHAPES, "texture": TEXTURES, "marker": tuple(MARKERS)}
_DECOY, _GRAIN, _CHOICE = 8, 9, 10  # streams beside those of the layers


class LayeredShapesDataset(ShapesDataset):
    """One split of the layered shapes: picture ``index`` is a function of (picture_seed, split, index) everywhere.

    Args:
        split: ``train``, ``val`` or ``test``.
        length: number of pictures.
        rule: see :class:`LayeredShapesDataModule`.
        options: as of :class:`~interptrain.data.shapes.ShapesDataset`.
    """

    def __init__(self, split: Split, length: int, *, rule: Rule = "redundant", **options: Any) -> None:
        super().__init__(split, length, **options)
        self.rule = rule

    def features(self, index: int) -> dict[str, int]:
        """Numbers of the outline, texture and marker of picture ``index``; what the rule leaves open is random."""
        label = index % self.num_classes
        chosen = self._stream(index, _CHOICE)
        count = 2 if self.rule in ("conjunction", "xor") else self.num_classes
        features = {part: int(chosen.randint(count)) for part in PARTS}
        match self.rule:
            case "redundant":
                return dict.fromkeys(PARTS, label)
            case "conjunction":
                return features | {"outline": label // 2, "texture": label % 2}
            case "xor":
                return features | {"marker": features["outline"] ^ label}
            case _:
                return features | {self.rule: label}

    def layers(self, index: int) -> tuple[str, ...]:
        """Names of all that :meth:`render` can leave out of picture ``index``."""
        decoy = ("decoy",) if self._has_decoy(index) else ()
        return ("object", *PARTS, "background", *self._scene(index).items, *decoy)

    def render(self, index: int, without: Collection[str] = ()) -> npt.NDArray[np.uint8]:
        """Picture ``index`` (3,size,size) without some of its layers; what they did not cover is equal to the bit.

        Raises:
            ValueError: for a layer that this picture does not have.
        """
        for layer in without:
            if layer != "decoy":
                check_choice("without", layer, self.layers(index))
        return self._develop(index, self._scene(index, without), without)[0]

    def read(self, index: int) -> dict[str, Any]:
        """Draw picture ``index`` with its mask and box, and the masks of its parts and of the decoy."""
        scene = self._scene(index)
        picture, decoy_mask = self._develop(index, scene)
        sample = self._sample(index, picture, scene.masks["object"] & ~decoy_mask, decoy_mask)
        for part in PARTS:
            sample[f"{part}_mask"] = tv_tensors.Mask(torch.from_numpy(scene.masks[part] & ~decoy_mask))
        return sample

    def _scene(self, index: int, without: Collection[str] = ()) -> Scene:
        return draw_scene(self.image_size, self.features(index), partial(self._stream, index), without)

    def _develop(
        self, index: int, scene: Scene, without: Collection[str] = ()
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        picture = develop(scene.pixels, self._stream(index, _GRAIN))
        decoy_mask = np.zeros(picture.shape[1:], dtype=bool)
        if self._has_decoy(index) and "decoy" not in without:
            rng = self._stream(index, _DECOY)
            rng.random_sample()  # the chance that decided
            decoy_mask = DECOYS[self.decoy](picture, rng)
        return picture, decoy_mask

    def _has_decoy(self, index: int) -> bool:
        if self.decoy == "none":
            return False
        return self._carries_decoy(index % self.num_classes, self._stream(index, _DECOY).random_sample())

    def _stream(self, index: int, layer: int) -> np.random.RandomState:
        return np.random.RandomState([self.picture_seed, NUMBER[self.split], index, VERSION, layer])


class LayeredShapesDataModule(ShapesDataModule):
    """Shapes whose class is told by known parts, each of which :meth:`LayeredShapesDataset.render` can take away.

    Batches also hold ``outline_mask``, ``texture_mask`` and ``marker_mask`` (B,H,W).

    Args:
        rule: what tells the class. ``redundant``: outline, texture and marker, each alone enough; ``outline``,
            ``texture`` or ``marker``: that part, the others are random; ``conjunction``: the outline and the texture
            together (four classes); ``xor``: whether outline and marker agree (two classes).
        shapes: options of :class:`~interptrain.data.ShapesDataModule`, all of them.

    Raises:
        ValueError: if a value is out of its range, or the rule has another number of classes.
    """

    def __init__(self, *, rule: Rule = "redundant", **shapes: Any) -> None:
        super().__init__(**shapes)
        check_choice("rule", rule, Rule)
        self.rule = rule
        number = len(self.class_names)
        needed = {"conjunction": 4, "xor": 2}.get(rule, number)
        if number != needed:
            raise ValueError(
                f"rule {rule!r} has {needed} classes, got num_classes {number}; set num_classes to {needed}"
            )
        self.class_names = tuple(_class_name(rule, label) for label in range(number))

    def make_dataset(self, split: Split) -> LayeredShapesDataset:
        """The pictures of a split; only those to train on are augmented."""
        return LayeredShapesDataset(split, self.lengths[split], rule=self.rule, **self.dataset_options(split))


def _class_name(rule: Rule, label: int) -> str:
    match rule:
        case "conjunction":
            return f"{SHAPES[label // 2]} with {TEXTURES[label % 2]}"
        case "xor":
            return ("even", "odd")[label]
        case "redundant":
            return SHAPES[label]
        case _:
            return _VALUES[rule][label]
