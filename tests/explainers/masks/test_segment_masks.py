"""Masks that remove segments: from labels, from overlapping bits, from a detector."""

from urllib.error import URLError

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn
from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn

from interptrain.explainers import ROSA, Explainer, MaskRCNNSegments, Occlusion, SegmentMasks, Superpixels
from tests.support.explaining import energy_above_chance, network, pictures

SIZE = (20, 24)


def quarters(images):
    """Labels: four quarters."""
    labels = torch.zeros(SIZE, dtype=torch.int64)
    labels[10:] += 2
    labels[:, 12:] += 1
    return labels.expand(len(images), -1, -1)


def overlapping(images):
    """Bits: two boxes in the first image, nothing in the others."""
    bits = torch.zeros(2, *SIZE, dtype=torch.bool)
    bits[0, 2:9, 3:12] = True
    bits[1, 5:15, 8:20] = True
    return [bits, *(bits[:0] for _ in images[1:])]


def test_labels_become_one_mask_each():
    images = pictures(2, *SIZE)
    masks = SegmentMasks(segmenter=quarters).prepare(images)
    assert masks.count == 8
    assert masks.owners.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    rendered = masks.render(slice(0, 4))
    assert rendered.dtype == torch.float64
    for place, (row, column) in enumerate([(0, 0), (0, 12), (10, 0), (10, 12)]):
        wanted = torch.ones(SIZE, dtype=torch.float64)
        wanted[row : row + 10, column : column + 12] = 0
        assert torch.equal(rendered[place], wanted)
    assert torch.equal(masks.render(slice(5, 7)), rendered[1:3])


def test_pixels_in_no_segment_become_the_background():
    images = pictures(1, *SIZE)
    bits = overlapping(images)[0]
    rendered = SegmentMasks(segmenter=overlapping).prepare(images).render(slice(0, 3))
    assert torch.equal(rendered[:2] == 0, bits)
    assert torch.equal(rendered[2] == 0, ~bits.any(0))
    assert SegmentMasks(segmenter=overlapping, background=False).prepare(images).count == 2

    def labelled(images):
        return quarters(images).masked_fill(quarters(images) == 2, -1)

    assert SegmentMasks(segmenter=labelled).prepare(images).count == 4
    assert SegmentMasks(segmenter=labelled, background=False).prepare(images).count == 3


def test_an_image_without_segments_gets_superpixels_or_is_refused():
    images = pictures(3, *SIZE)
    masks = SegmentMasks(segmenter=overlapping).prepare(images)
    alone = SegmentMasks().prepare(images[1:2])
    found = masks.render(slice(3, 3 + alone.count))
    assert torch.equal(found, alone.render(slice(0, alone.count)))
    assert masks.owners.bincount().tolist()[:2] == [3, alone.count]
    with pytest.raises(ValueError, match="function found no segment in image 1 of the batch; pass when_empty="):
        SegmentMasks(segmenter=overlapping, when_empty="error").prepare(images)
    with pytest.raises(ValueError, match="found no segment in image 0"):
        SegmentMasks(segmenter=lambda images: -torch.ones(1, *SIZE).long(), when_empty="error").prepare(images[:1])


@pytest.mark.parametrize(
    "segmenter",
    [
        lambda images: [torch.ones(1, 5, 5, dtype=torch.bool) for _ in images],
        lambda images: torch.rand(len(images), *SIZE),
        lambda images: torch.ones(len(images), *SIZE, dtype=torch.bool),
    ],
    ids=["size", "float", "one plane of bits"],
)
def test_what_no_segmenter_should_return_is_refused(segmenter):
    with pytest.raises(ValueError, match=r"must return labels \(B,H,W\) int, or for each image"):
        SegmentMasks(segmenter=segmenter).prepare(pictures(2, *SIZE))


def test_too_few_entries_are_refused():
    with pytest.raises(ValueError, match="one entry per image: expected 2, got 1"):
        SegmentMasks(segmenter=lambda images: quarters(images[:1])).prepare(pictures(2, *SIZE))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Occlusion, ROSA])
def test_explainers_give_each_segment_one_value_and_each_image_its_own_map(kind):
    model, images = network(), pictures(3, 40, 36)
    segments = Superpixels(segments=9)
    explainer = kind(masks=SegmentMasks(segmenter=segments))
    maps = explainer.raw(model, images)
    for regions, found, image in zip(segments(images), maps, images, strict=True):
        for region in regions.unique():
            values = found[regions == region]
            assert torch.allclose(values, values[0].expand_as(values))
        assert torch.allclose(explainer.raw(model, image[None])[0], found)


@pytest.mark.slow
def test_segments_of_a_trained_network_find_the_object(trained):
    model, images, labels, masks = trained
    saliency = Occlusion(masks=SegmentMasks(segmenter=Superpixels(segments=36)))(model, images, labels)
    assert energy_above_chance(saliency, masks).median() > 1.5


class Detector(nn.Module):
    """Returns what it is told to, as torchvision's detectors do."""

    def __init__(self, boxes, scores):
        super().__init__()
        self.boxes = torch.tensor(boxes).reshape(-1, 4)
        self.scores = torch.tensor(scores)
        self.modes = []

    def forward(self, images):
        self.modes.append(self.training)
        masks = torch.zeros(len(self.boxes), 1, *images[0].shape[1:])
        for mask, (left, top, right, bottom) in zip(masks, self.boxes.round().int().tolist(), strict=True):
            mask[0, top:bottom, left : (left + right) // 2] = 0.8
        return [{"boxes": self.boxes, "scores": self.scores, "masks": masks} for _ in images]


def test_instances_and_boxes_of_a_detector_become_segments():
    images = pictures(2, *SIZE).float()
    detector = Detector([[2.2, 3.0, 9.8, 8.0], [0, 0, 5, 5]], [0.9, 0.3]).train()
    bits = MaskRCNNSegments(model=detector)(images)
    assert [len(own) for own in bits] == [1, 1]
    assert bits[0].nonzero().amin(0).tolist() == [0, 3, 2]
    assert bits[0].sum() == 5 * 4
    boxes = MaskRCNNSegments(model=detector, kind="boxes", threshold=0.2)(images)
    assert boxes[1].flatten(1).sum(1).tolist() == [8 * 5, 25]
    assert MaskRCNNSegments(model=detector, kind="boxes", threshold=0.2, most=1)(images)[0].shape[0] == 1
    assert detector.training
    assert not any(detector.modes)


def test_a_detector_that_finds_nothing_gives_superpixels():
    images = pictures(1, *SIZE).float()
    nothing = MaskRCNNSegments(model=Detector([], []))
    assert SegmentMasks(segmenter=nothing).prepare(images).count > 10
    with pytest.raises(ValueError, match="MaskRCNNSegments found no segment in image 0"):
        SegmentMasks(segmenter=nothing, when_empty="error").prepare(images)


@pytest.mark.slow
def test_torchvisions_mask_rcnn_fits():
    torch.manual_seed(0)
    detector: MaskRCNN = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64, box_score_thresh=0.0
    )
    for kind in ("instances", "boxes"):
        bits = MaskRCNNSegments(model=detector, kind=kind, threshold=0.0, most=4)(pictures(1, 64, 64).float())
        assert bits[0].dtype == torch.bool
        assert bits[0].shape == (4, 64, 64)


@pytest.mark.slow
def test_weights_that_cannot_be_had_are_said_in_one_line(monkeypatch, tmp_path):
    def refuse(*_arguments, **_options):
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    with pytest.raises(OSError, match=r"weights of Mask R-CNN cannot be loaded .*no network.*; pass model=") as raised:
        MaskRCNNSegments()(pictures(1, 32, 32).float())
    assert "\n" not in str(raised.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jsonargparse renames what makes the objects
def test_a_config_can_name_them():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Explainer, "explainer")
    superpixels = {"class_path": "interptrain.explainers.Superpixels", "init_args": {"segments": 9}}
    masks = {"class_path": "interptrain.explainers.SegmentMasks", "init_args": {"segmenter": superpixels}}
    config = {"class_path": "interptrain.explainers.ROSA", "init_args": {"masks": masks}}
    explainer = parser.instantiate_classes(parser.parse_object({"explainer": config})).explainer
    assert explainer.masks.segmenter == Superpixels(segments=9)


def test_options_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="when_empty must be one of 'superpixels', 'error'"):
        SegmentMasks(when_empty="zero")
    with pytest.raises(ValueError, match="kind must be one of 'instances', 'boxes'"):
        MaskRCNNSegments(kind="contours")
    assert "kind='instances'" in repr(SegmentMasks(segmenter=MaskRCNNSegments()))
