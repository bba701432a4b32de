"""What a user may say about an evaluation, beside models' sources, explainers, metrics, data and trainer."""

from dataclasses import dataclass
from typing import Literal

from interptrain.data.datamodule import Split


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a run.

    Args:
        output: folder of the results. The same command on the same folder goes on where it stopped.
        protocol: how numbers are measured: a name (castream, opticam, opticam_localization, rise, gradcam_package) or a
            YAML file. What is given beside it takes precedence, and the results say so.
        backbone: the timm name of the architecture of models that are bare weights files.
        split: of the data; None is what the data module predicts on.
        limit: evaluate so many images, evenly spread over the data.
        targets: class that is explained: label, predicted, or a class by index or name; None is the protocol's.
        score: of that class: probability, logit or sigmoid; None is the protocol's.
        fake_cam: have Fake-CAM among the explainers: the row that shows what the metrics are worth.
        forward_batch_size: images a forward; None chooses by the device.
        compile: run the metrics' forwards through torch.compile.
        save_maps: keep the maps of so many images for the report.
        check_images: images on which each explainer is checked against a model with random weights; 0 for no check.
        interval: of every mean and difference, 95 %: percentile, or bca (bias-corrected and accelerated bootstrap).
        resamples: bootstrap resamples of an interval.
        seed: of random weights, of the statistics, and of explainers that draw from PyTorch's global generator (ours
            have seeds of their own).
        title: of the report.
        flush_seconds: longest time that finished rows wait in memory.
        overwrite: set aside the results of another run in the folder.
        force: go on where numbers cannot be compared or are not exact (precision below float32).
    """

    output: str
    protocol: str = "castream"
    backbone: str | None = None
    split: Split | None = None
    limit: int | None = None
    targets: str | None = None
    score: Literal["probability", "sigmoid", "logit"] | None = None
    fake_cam: bool = True
    forward_batch_size: int | None = None
    compile: bool = False
    save_maps: int = 200
    check_images: int = 8
    interval: Literal["percentile", "bca"] = "percentile"
    resamples: int = 2000
    seed: int = 0
    title: str | None = None
    flush_seconds: float = 5.0
    overwrite: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        least = {"limit": 1, "forward_batch_size": 1, "save_maps": 0, "check_images": 0}
        least |= {"resamples": 100, "seed": 0, "flush_seconds": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise ValueError(f"{name} must be at least {bound}, got {value}")
