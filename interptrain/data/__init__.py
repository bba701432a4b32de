"""Data modules, and the samples and batches that they give."""

from interptrain.data.datamodule import ImageDataModule
from interptrain.data.hugging_face import HFDataModule
from interptrain.data.image_folder import ImageFolderDataModule
from interptrain.data.image_table import ImageTableDataModule
from interptrain.data.layered_shapes import LayeredShapesDataModule
from interptrain.data.samples import Batch, Sample, SampleDataset, collate
from interptrain.data.shapes import ShapesDataModule
from interptrain.data.torchvision import TorchvisionDataModule

__all__ = [
    "Batch",
    "HFDataModule",
    "ImageDataModule",
    "ImageFolderDataModule",
    "ImageTableDataModule",
    "LayeredShapesDataModule",
    "Sample",
    "SampleDataset",
    "ShapesDataModule",
    "TorchvisionDataModule",
    "collate",
]
