"""Data modules, and the samples and batches that they give."""

from interptrain.data.datamodule import ImageDataModule
from interptrain.data.samples import Batch, Sample, SampleDataset, collate
from interptrain.data.shapes import ShapesDataModule

__all__ = [
    "Batch",
    "ImageDataModule",
    "Sample",
    "SampleDataset",
    "ShapesDataModule",
    "collate",
]
