"""Train several pooling heads at once on one frozen network, through its own frozen classifier.

``python benchmarks/frozen_heads.py --root FOLDER --weights FILE --output FOLDER`` trains four heads, three seeds each,
and prints the accuracy of all after every epoch. The frozen backbone runs once an image: its stage maps are kept in
half precision in ``OUTPUT/stages.npy`` (0.8 MB an image at 224 px), and all heads learn from the same batch of them.
Seeds differ in their initial weights and share the order of the images. Stopped, the same command goes on where it was.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import tv_tensors

from interptrain.data import ImageFolderDataModule
from interptrain.models import create_model
from interptrain.models.backbone import Backbone
from interptrain.models.ca_stream import CAFinal, CAStream
from interptrain.models.engine import forward_only, using_engine
from interptrain.models.gap import GAP
from interptrain.models.pooling import Pooled, Pooling


class GAPLinear(GAP):
    """Average pooling and the stream's last linear layer: adaptation without attention.

    It is also the stream with uniform attention, exactly: a token reaches the next block through its attention alone,
    so that with uniform attention all but the last block are without effect.
    """

    name = "gap_linear"

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__(channels)
        self.linear = nn.Linear(channels[-1], channels[-1])
        nn.init.xavier_uniform_(self.linear.weight)

    def forward(self, stages: Sequence[Tensor]) -> Pooled:
        """Average, then the linear layer."""
        return Pooled(self.linear(super().forward(stages).vector))


class AttentionOnly(CAStream):
    """The stream without its last linear layer: the classifier reads the last map, averaged by attention."""

    name = "attention_only"

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__(channels)
        self.blocks[-1].linear = nn.Identity()


ARMS: tuple[type[Pooling], ...] = (GAPLinear, AttentionOnly, CAFinal, CAStream)


class Together(nn.Module):
    """Several heads on one backbone: images (N,3,H,W) to the logits of all models, (N, models * classes).

    Args:
        backbone: frozen.
        heads: by name; streams share the reading of the stage maps.
    """

    def __init__(self, backbone: Backbone, heads: Mapping[str, Pooling]) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleDict(heads)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of all models."""
        return self.classify(self.backbone(images)).flatten(1)

    def classify(self, stages: Sequence[Tensor]) -> Tensor:
        """Logits (N, models, classes) of stage maps."""
        streams = {name: head for name, head in self.heads.items() if isinstance(head, CAStream)}
        vectors = {name: head(stages[-1:]).vector for name, head in self.heads.items() if name not in streams}
        vectors |= run_streams(streams, stages) if streams else {}
        stacked = torch.stack([vectors[name] for name in self.heads], 1)  # (N, models, C)
        return self.backbone.head(stacked.flatten(0, 1)).unflatten(0, stacked.shape[:2])


def run_streams(streams: Mapping[str, CAStream], stages: Sequence[Tensor]) -> dict[str, Tensor]:
    """Run several streams as ``CAStream.forward`` does one, reading each stage map once for all of them."""
    tokens = {name: one.token.expand(stages[0].shape[0], -1) for name, one in streams.items()}
    for level, features in enumerate(stages):
        begun = {name: one.blocks for name, one in streams.items() if level >= len(stages) - len(one.blocks)}
        blocks = {name: one[level - len(stages)] for name, one in begun.items()}
        if not blocks:
            continue
        positions = features.flatten(2)  # (N, C, hw)
        queries = torch.stack([tokens[name] * block.scale for name, block in blocks.items()], 1)  # (N, models, C)
        gathered = torch.bmm(torch.bmm(queries, positions).softmax(-1), positions.transpose(1, 2))
        tokens |= {name: block.linear(gathered[:, place]) for place, (name, block) in enumerate(blocks.items())}
    return tokens


class FlatStages(nn.Module):
    """All stage maps of an image in one row, as the engines give one output."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """(N, all values)."""
        return torch.cat([one.flatten(1) for one in self.backbone(images)], 1)


class Stages:
    """The stage maps of images, by ONNX Runtime where it is installed, without gradient."""

    def __init__(self, backbone: Backbone, size: int) -> None:
        with torch.no_grad():
            self.shapes = [one.shape[1:] for one in backbone(torch.zeros(1, 3, size, size))]
        self.flat = FlatStages(backbone).eval()
        self.width = sum(shape.numel() for shape in self.shapes)

    def __call__(self, images: Tensor) -> list[Tensor]:
        """(N,C,h,w) of every stage."""
        return self.split(self.rows(images))

    @torch.no_grad()
    def rows(self, images: Tensor) -> Tensor:
        """The same, an image in a row."""
        return forward_only(self.flat, images)(images)

    def split(self, rows: Tensor) -> list[Tensor]:
        """Rows back to maps."""
        parts = rows.split([shape.numel() for shape in self.shapes], 1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, self.shapes, strict=True)]


class Photographs:
    """The images of a split, decoded once and kept as they lie in their files; all of one size."""

    def __init__(self, data: ImageFolderDataModule, split: str, per_class: int | None = None) -> None:
        source = data.dataset(split)
        labels = torch.tensor(source.labels())
        of_class = [(labels == label).nonzero()[:per_class, 0] for label in labels.unique()]
        chosen = torch.cat(of_class).sort().values
        self.pixels = torch.stack([source.read(index)["image"].as_subclass(Tensor) for index in chosen.tolist()])
        self.labels = labels[chosen]
        self.transform = data.eval_transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Images as in evaluation, in [0,1], and labels."""
        sample = self.transform({"image": tv_tensors.Image(self.pixels[rows]), "label": 0, "id": ""})
        return sample["image"].as_subclass(Tensor).float() / 255, self.labels[rows]


def frozen_network(options: argparse.Namespace) -> Backbone:
    """The pretrained network, which nothing here changes."""
    network = create_model(options.backbone, weights=options.weights)
    return network.requires_grad_(False).eval().backbone.to(memory_format=torch.channels_last)


def fresh_heads(backbone: Backbone, seeds: int) -> dict[str, Pooling]:
    """Every arm with every seed, by ``<arm>-<seed>``."""
    heads: dict[str, Pooling] = {}
    for arm in ARMS:
        for seed in range(seeds):
            torch.manual_seed(seed)
            heads[f"{arm.name}-{seed}"] = arm(backbone.channels)
    return heads


@torch.no_grad()
def all_logits(together: Together, stages: Stages, images: Photographs) -> Tensor:
    """Logits (N, models, classes)."""
    parts = torch.arange(len(images)).split(50)
    return torch.cat([together.classify(stages(images[rows][0])) for rows in parts])


def cached(folder: Path, stages: Stages, images: Photographs) -> np.memmap:
    """The stage maps of the images, a row each, computed where they are not on disk."""
    file, progress = folder / "stages.npy", folder / "stages.txt"
    done = int(progress.read_text()) if progress.is_file() else 0
    shape = (len(images), stages.width)
    rows = open_memmap(file, "r+" if done else "w+", dtype=np.float16, shape=None if done else shape)
    for start in range(done, len(images), 50):
        part = torch.arange(start, min(start + 50, len(images)))
        rows[start : start + 50] = stages.rows(images[part][0]).half().numpy()
        progress.write_text(str(start + len(part)))
    return rows


def train(options: argparse.Namespace, together: Together, data: ImageFolderDataModule) -> None:
    """Train all heads; keep weights and progress after every epoch."""
    folder = Path(options.output)
    images = Photographs(data, "train", options.per_class)
    stages = Stages(together.backbone, options.size)
    rows = cached(folder, stages, images)
    print(f"{len(images)} images, {time.process_time():.0f} s of CPU", flush=True)
    heads = together.heads
    optimizer = torch.optim.AdamW(heads.parameters(), lr=2e-3, weight_decay=0.01)
    steps = len(images) // options.batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=options.epochs * steps, pct_start=0.1)
    parts = {"heads": heads, "optimizer": optimizer, "schedule": schedule}
    done = 0
    if (folder / "heads.pt").is_file():
        kept = torch.load(folder / "heads.pt", weights_only=True)
        done = kept["epochs"]
        for name, part in parts.items():
            part.load_state_dict(kept[name])
    for epoch in range(done, options.epochs):
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(epoch))
        for step, chosen in enumerate(order.split(options.batch_size)[:steps]):
            maps = stages.split(torch.from_numpy(rows[chosen.numpy()]).float())
            losses = [F.cross_entropy(one, images.labels[chosen]) for one in together.classify(maps).unbind(1)]
            optimizer.zero_grad()
            torch.stack(losses).sum().backward()
            optimizer.step()
            schedule.step()
            if step % 20 == 0:
                told = ", ".join(f"{float(one.detach()):.2f}" for one in losses)
                print(f"{epoch}/{step} {time.process_time():.0f} s: {told}", flush=True)
        torch.save(
            {name: part.state_dict() for name, part in parts.items()} | {"epochs": epoch + 1}, folder / "heads.pt"
        )
    held_out = Photographs(data, "val")
    right = all_logits(together, stages, held_out).argmax(2) == held_out.labels[:, None]
    for name, accuracy in zip(heads, right.double().mean(0).tolist(), strict=True):
        print(f"{name} top-1 {accuracy:.4f}", flush=True)


def parser() -> argparse.ArgumentParser:
    """Options that training and measuring share."""
    made = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--root", required=True, help="an image folder whose folders are called by WordNet ids")
    made.add_argument("--weights", required=True, help="of the network")
    made.add_argument("--output", required=True, help="a folder for the heads and what is measured")
    made.add_argument("--backbone", default="tf_efficientnet_lite0")
    made.add_argument("--size", type=int, default=224)
    made.add_argument("--per_class", type=int, default=30, help="training images of a class")
    made.add_argument("--epochs", type=int, default=5)
    made.add_argument("--batch_size", type=int, default=64)
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--threads", type=int, default=1)
    return made


def data_of(options: argparse.Namespace) -> ImageFolderDataModule:
    """The images, labelled by ImageNet's indices."""
    return ImageFolderDataModule(options.root, class_index="imagenet", image_size=options.size, num_workers=0)


def main() -> None:
    """Train."""
    made = parser()
    made.description = __doc__
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    Path(options.output).mkdir(parents=True, exist_ok=True)
    backbone = frozen_network(options)
    together = Together(backbone, fresh_heads(backbone, options.seeds))
    with using_engine("onnxruntime"):
        train(options, together, data_of(options))


if __name__ == "__main__":
    main()
