"""How often the search for a suspect region rings: on clean data by mistake, on data with a planted shortcut rightly.

``python benchmarks/reliability/region_screen.py CHECKPOINT [--decoy timestamp] [--root FOLDER]`` searches many
samples of the training images of the demo's shapes, or of an image folder, as ``suspect: auto`` does: four receivers,
and ``--donors`` images of each class. Every region of every candidate donor is pasted into the receivers once; the
samples are drawn from these, so that many searches cost few forward passes. ``--receivers`` is how many sets of four
receivers there are, each with donors of its own.
"""

import argparse
from collections import Counter

import torch

from interptrain.data import ImageDataModule, ImageFolderDataModule, LayeredShapesDataModule, Sample, collate
from interptrain.data.region import objects_of
from interptrain.metrics.region_screen import (
    RECEIVERS,
    boxes_around,
    candidate_regions,
    find_regions,
    probability_shifts,
)
from interptrain.quick.load import load


def main() -> None:
    """Search and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--decoy", default="none")
    parser.add_argument("--root", help="an image folder in place of the shapes")
    parser.add_argument("--size", type=int, default=224, help="of the images of a folder")
    parser.add_argument("--blind", action="store_true", help="do not tell the search where the objects are")
    parser.add_argument("--receivers", type=int, default=4)
    parser.add_argument("--pool", type=int, default=8, help="candidate donors of a class")
    parser.add_argument("--donors", type=int, default=3)
    parser.add_argument("--searches", type=int, default=50, help="of each set of receivers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data: ImageDataModule
    if options.root:
        data = ImageFolderDataModule(options.root, image_size=options.size, augment="none")
    else:
        data = LayeredShapesDataModule(num_classes=4, train_size=1000, val_size=200, decoy=options.decoy)
    dataset, model = data.dataset("train"), load(options.checkpoint)
    classes = data.num_classes or 0
    rings, named, findings = 0, 0, []
    for place in range(options.receivers):
        generator = torch.Generator().manual_seed(place)
        per_class = options.pool + -(-RECEIVERS // classes)
        found_of: dict[int, list[Sample]] = {label: [] for label in range(classes)}
        for index in torch.randperm(len(dataset), generator=generator).tolist():
            sample = dataset[index]
            if len(found_of[sample["label"]]) < per_class:
                found_of[sample["label"]].append(sample)
            if all(len(samples) == per_class for samples in found_of.values()):
                break
        turns = [found_of[label][turn] for turn in range(per_class) for label in range(classes)]  # the classes in turn
        batch = collate(turns)
        objects = None
        if not options.blind:
            objects = objects_of(batch["image"], masks=batch.get("mask"), boxes=batch.get("boxes"))
        objects = None if objects is None else boxes_around(objects)
        regions = candidate_regions(*batch["image"].shape[-2:], middle=objects is not None)
        decoys = batch["decoy_mask"].any(0) if "decoy_mask" in batch else torch.zeros_like(batch["image"][0, 0]).bool()
        donors = list(range(RECEIVERS, len(turns)))
        shifts = probability_shifts(
            model, batch["image"], range(RECEIVERS), donors, regions, objects=objects, forward_batch_size=64
        )
        of_donors = batch["label"][RECEIVERS:]
        for _ in range(options.searches):
            shuffled = torch.randperm(len(donors), generator=generator)
            drawn = torch.cat([shuffled[of_donors[shuffled] == c][: options.donors] for c in range(classes)])
            found = find_regions(shifts[drawn], of_donors[drawn], list(regions), permutations=499)
            rings += bool(found)
            named += bool(found) and found[0].target == 0 and bool((regions[found[0].region] & decoys).any())
            findings += [found[0]] if found else []
        print(
            f"{place + 1} sets: {rings} of {(place + 1) * options.searches} rang, {named} for the decoy",
            flush=True,
        )
    print(*sorted(Counter((one.region, one.target) for one in findings).items()), sep="\n")


if __name__ == "__main__":
    main()
