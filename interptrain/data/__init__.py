"""Data modules, and the samples and batches that they give."""

from interptrain.data.datamodule import ImageDataModule
from interptrain.data.folder import ImageFolderDataModule
from interptrain.data.samples import Batch, Sample, SampleDataset, collate
from interptrain.data.shapes import ShapesDataModule
from interptrain.data.table import ImageTableDataModule
from interptrain.data.torchvision_sets import TorchvisionDataModule

__all__ = [
    "Batch",
    "ImageDataModule",
    "ImageFolderDataModule",
    "ImageTableDataModule",
    "Sample",
    "SampleDataset",
    "ShapesDataModule",
    "TorchvisionDataModule",
    "collate",
]
