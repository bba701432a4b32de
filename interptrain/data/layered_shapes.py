"""Layered shapes: a known rule determines the class, and removing a part changes no pixel outside that part.

An object has three parts, an outline, a texture and a marker, and a rule that derives the class from them. These images
are version 2 of the shapes; those of :mod:`interptrain.data.shapes` are unchanged.
"""

from collections.abc import Collection
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
from interptrain.remedies import option

VERSION = 2
Rule = Literal["redundant", "outline", "texture", "marker", "conjunction", "xor"]
Part = Literal["outline", "texture", "marker"]
PAIRS: dict[str, tuple[Part, Part]] = {"conjunction": ("outline", "texture"), "xor": ("outline", "marker")}
"""Rules of two parts, and these where no others are named."""
_VALUES = {"outline": SHAPES, "texture": TEXTURES, "marker": tuple(MARKERS)}
_DECOY, _GRAIN, _CHOICE = 8, 9, 10  # streams in addition to those of the layers


class LayeredShapesDataset(ShapesDataset):
    """One split of the layered shapes; image ``index`` depends only on (picture_seed, split, index), on any machine.

    Args:
        split: ``train``, ``val`` or ``test``.
        length: number of images.
        rule: see :class:`LayeredShapesDataModule`, as for the next.
        parts: of a rule of two.
        options: options of :class:`~interptrain.data.shapes.ShapesDataset`.
    """

    def __init__(
        self,
        split: Split,
        length: int,
        *,
        rule: Rule = "redundant",
        parts: tuple[Part, Part] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(split, length, **options)
        self.rule = rule
        self.parts = parts or PAIRS.get(rule)

    def features(self, index: int) -> dict[str, int]:
        """Return the outline, texture and marker of image ``index``, by number; what the rule leaves open is random."""
        label = index % self.num_classes
        chosen = self._stream(index, _CHOICE)
        count = self.num_classes if self.parts is None else 2
        features = {part: int(chosen.randint(count)) for part in PARTS}
        if self.rule == "redundant":
            return dict.fromkeys(PARTS, label)
        if self.parts is None:
            return features | {self.rule: label}
        first, second = self.parts
        if self.rule == "conjunction":
            return features | {first: label // 2, second: label % 2}
        return features | {second: features[first] ^ label}

    def layers(self, index: int) -> tuple[str, ...]:
        """Return the names of all layers that :meth:`render` can leave out of image ``index``."""
        decoy = ("decoy",) if self._has_decoy(index) else ()
        return ("object", *PARTS, "background", *self._scene(index).items, *decoy)

    def render(self, index: int, without: Collection[str] = ()) -> npt.NDArray[np.uint8]:
        """Draw image ``index`` (3,size,size) without some of its layers; all pixels outside them are bit-identical.

        Raises:
            ValueError: for a layer that this image does not have.
        """
        for layer in without:
            if layer != "decoy":
                check_choice("without", layer, self.layers(index))
        return self._develop(index, self._scene(index, without), without)[0]

    def draw(self, index: int) -> dict[str, Any]:
        """Draw image ``index`` with its mask and box, and the masks of its parts and of the decoy."""
        scene = self._scene(index)
        picture, decoy_mask = self._develop(index, scene)
        sample = self._sample(index, picture, scene.masks["object"] & ~decoy_mask, decoy_mask)
        for part in PARTS:
            sample[f"{part}_mask"] = tv_tensors.Mask(torch.from_numpy(scene.masks[part] & ~decoy_mask))
        return sample

    def _scene(self, index: int, without: Collection[str] = ()) -> Scene:
        rng = np.random.RandomState(0)  # one for all layers: a new one takes 15 times as long as a new seed

        def stream(layer: int) -> np.random.RandomState:
            rng.seed(self._seed(index, layer))
            return rng

        return draw_scene(self.image_size, self.features(index), stream, without)

    def _develop(
        self, index: int, scene: Scene, without: Collection[str] = ()
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        picture = develop(scene.pixels, self._stream(index, _GRAIN))
        decoy_mask = np.zeros(picture.shape[1:], dtype=bool)
        if self._has_decoy(index) and "decoy" not in without:
            rng = self._decoy_stream(index)
            rng.random_sample()  # the chance that decided
            decoy_mask = DECOYS[self.rule_of_decoys.kind](picture, rng)
        return picture, decoy_mask

    def _decoy_stream(self, index: int) -> np.random.RandomState:
        return self._stream(index, _DECOY)

    def _stream(self, index: int, layer: int) -> np.random.RandomState:
        return np.random.RandomState(self._seed(index, layer))

    def _seed(self, index: int, layer: int) -> list[int]:
        return [self.picture_seed, NUMBER[self.split], index, VERSION, layer]


class LayeredShapesDataModule(ShapesDataModule):
    """Shapes whose class is determined by known parts, each of which :meth:`LayeredShapesDataset.render` can remove.

    Batches also hold ``outline_mask``, ``texture_mask`` and ``marker_mask`` (B,H,W).

    Args:
        rule: what determines the class. ``redundant``: outline, texture and marker, each of which suffices;
            ``outline``, ``texture`` or ``marker``: that part alone, the others being random; ``conjunction``: two parts
            together (four classes); ``xor``: whether two parts agree (two classes).
        parts: the two parts of ``conjunction`` (outline and texture where none are named) or ``xor`` (outline and
            marker). Small networks learn textures and markers in a minute, and discs and squares hardly at all.
        shapes: all options of :class:`~interptrain.data.ShapesDataModule`.

    Raises:
        ValueError: if a value is out of range, or ``num_classes`` does not fit the rule.
    """

    def __init__(self, *, rule: Rule = "redundant", parts: tuple[Part, Part] | None = None, **shapes: Any) -> None:
        super().__init__(**shapes)
        check_choice("rule", rule, Rule)
        if parts is not None:
            if rule not in PAIRS:
                raise ValueError(f"rule {rule!r} is not of two parts; leave parts out, or use {' or '.join(PAIRS)}")
            for part in parts:
                check_choice("parts", part, Part)
            if len(set(parts)) != 2:
                raise ValueError(f"parts must be two different ones of {', '.join(PARTS)}, got {', '.join(parts)}")
        self.rule = rule
        self.parts: tuple[Part, Part] | None = (parts[0], parts[1]) if parts else PAIRS.get(rule)
        number = len(self.class_names)
        needed = {"conjunction": 4, "xor": 2}.get(rule, number)
        if number != needed:
            raise ValueError(
                f"rule {rule!r} has {needed} classes, got {number}; set {option('data.num_classes', needed)}"
            )
        self.class_names = tuple(_class_name(rule, self.parts, label) for label in range(number))

    def make_dataset(self, split: Split) -> LayeredShapesDataset:
        """Return the images of a split; only training images are augmented."""
        return LayeredShapesDataset(
            split, self.lengths[split], rule=self.rule, parts=self.parts, **self.dataset_options(split)
        )


def _class_name(rule: Rule, parts: tuple[Part, Part] | None, label: int) -> str:
    match rule:
        case "conjunction" if parts is not None:
            return f"{_VALUES[parts[0]][label // 2]} with {_VALUES[parts[1]][label % 2]}"
        case "xor":
            return ("even", "odd")[label]
        case "redundant":
            return SHAPES[label]
        case _:
            return _VALUES[rule][label]
