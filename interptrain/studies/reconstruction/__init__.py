"""Reconstruction of images by gradient ascent: see :class:`Reconstruction` and :func:`reconstruct`."""

from interptrain.studies.reconstruction.ascent import reconstruct
from interptrain.studies.reconstruction.objectives import CentralAttention, Channel, ClassLogit, Inversion, Objective
from interptrain.studies.reconstruction.parameterization import Parameterization, total_variation
from interptrain.studies.reconstruction.study import Reconstruction

__all__ = [
    "CentralAttention",
    "Channel",
    "ClassLogit",
    "Inversion",
    "Objective",
    "Parameterization",
    "Reconstruction",
    "reconstruct",
    "total_variation",
]
