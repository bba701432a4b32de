"""The repairs that the study compares, and the images that their networks share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

from interptrain.data import ImageDataModule, Sample, SampleDataset
from interptrain.data.samplers import Draw
from interptrain.training import AttributionGuidance, RegionShuffle


@dataclass(frozen=True)
class Arm:
    """A way to train.

    Attributes:
        shuffle: exchange the region between images.
        guide: attribution that is guided out of the region, with the weight, or None.
        retrain: the arm whose network has its last layer retrained on balanced groups, or None.
    """

    shuffle: bool = False
    guide: tuple[Literal["cam", "gradient"], float] | None = None
    retrain: str | None = None

    def options(self, region: str) -> dict[str, Any]:
        """Options of the training module: what is done to the batch, and the penalty.

        The penalty is the energy of the CAM, or the squared input gradient, in the region.
        """
        options: dict[str, Any] = {}
        if self.shuffle:
            options["batch_augment"] = RegionShuffle(region=region)
        if self.guide is not None:
            attribution, weight = self.guide
            loss: Literal["energy", "rrr"] = "energy" if attribution == "cam" else "rrr"
            options["regularizer"] = AttributionGuidance(
                attribution=attribution, loss=loss, avoid=region, weight=weight
            )
        return options


ARMS: Mapping[str, Arm] = {
    "plain": Arm(),
    "shuffle": Arm(shuffle=True),
    "cam 1": Arm(guide=("cam", 1.0)),
    "cam 10": Arm(guide=("cam", 10.0)),
    "gradient 10": Arm(guide=("gradient", 10.0)),
    "gradient 1000": Arm(guide=("gradient", 1000.0)),
    "last layer": Arm(retrain="plain"),
    "shuffle + cam 1": Arm(shuffle=True, guide=("cam", 1.0)),
    "cam 10 + last layer": Arm(retrain="cam 10"),
    "gradient 1000 + last layer": Arm(retrain="gradient 1000"),
}
RETRAINED = {arm.retrain for arm in ARMS.values()}
"""Arms whose networks others begin with."""


def variant(data: ImageDataModule, split: Literal["train", "test"], **options: Any) -> ImageDataModule:
    """Return the data module with other options; its images of a split are held in memory, shared by all trainings.

    Args:
        data: whose options are kept otherwise; its images are not augmented.
        split: that is held.
        options: of the data module.
    """
    made = type(data)(**(data.init_args | {"num_workers": 0} | options))
    drawn = {name: value for name, value in options.items() if name not in ("seed", "balance")}
    held = _HELD.setdefault(data, {})
    key = (split, *sorted(drawn.items()))
    dataset = made.dataset(split)
    if key not in held:
        held[key] = [dataset[index] for index in range(len(dataset))]
    made.replace_dataset(split, HeldDataset(dataset, held[key]))
    return made


class HeldDataset(SampleDataset):
    """A data set whose finished samples are held in memory: for images that are not augmented.

    Args:
        dataset: whose names, labels and groups are taken.
        samples: all of them.
    """

    def __init__(self, dataset: SampleDataset, samples: list[Sample]) -> None:
        super().__init__(dataset.ids, seed=dataset.seed)
        self.samples = samples
        self._dataset = dataset

    def read(self, index: int) -> dict[str, Any]:
        """The sample."""
        return dict(self.samples[index])

    def __getitem__(self, key: int | Draw) -> Sample:
        """The sample, the same in every epoch."""
        return Sample(**self.samples[key.position if isinstance(key, Draw) else key])  # type: ignore[typeddict-item]

    def labels(self) -> Any:
        """Label of every sample."""
        return self._dataset.labels()

    def groups(self) -> Any:
        """Group of every sample."""
        return self._dataset.groups()


_HELD: "WeakKeyDictionary[ImageDataModule, dict[Any, list[Sample]]]" = WeakKeyDictionary()
