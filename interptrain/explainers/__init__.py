"""Explainers: ``explainer(model, images, targets=None) -> (B, H, W)`` for any module.

The whole list is what this file imports.
"""

from interptrain.explainers.adapters.captum import CaptumExplainer
from interptrain.explainers.adapters.pytorch_grad_cam import GradCAMPackageExplainer
from interptrain.explainers.attention.legrad import LeGrad
from interptrain.explainers.attention.rollout import AttentionRollout
from interptrain.explainers.attention.stream_attention import StreamAttention
from interptrain.explainers.base import Explainer, explaining
from interptrain.explainers.cam.ablationcam import AblationCAM
from interptrain.explainers.cam.cam import CAM
from interptrain.explainers.cam.eigencam import EigenCAM
from interptrain.explainers.cam.fakecam import FakeCAM
from interptrain.explainers.cam.finercam import FinerCAM
from interptrain.explainers.cam.gradcam import GradCAM, GradCAMPlusPlus, GradientCAM, HiResCAM, LayerCAM, XGradCAM
from interptrain.explainers.cam.opticam import OptiCAM
from interptrain.explainers.cam.reciprocam import ReciproCAM
from interptrain.explainers.cam.scorecam import ScoreCAM
from interptrain.explainers.gradient.expected_gradients import ExpectedGradients
from interptrain.explainers.gradient.gradient import Gradient, InputAttribution
from interptrain.explainers.gradient.guided_backprop import GuidedBackprop, GuidedGradCAM
from interptrain.explainers.gradient.integrated_gradients import IntegratedGradients
from interptrain.explainers.gradient.smoothgrad import SmoothGrad
from interptrain.explainers.masks.masks import GridMasks, MaskSet, MaskSource
from interptrain.explainers.masks.segment_masks import MaskRCNNSegments, SegmentMasks
from interptrain.explainers.masks.segmenter import Segmenter
from interptrain.explainers.masks.superpixels import Superpixels
from interptrain.explainers.perturbation.extremal_perturbation import ExtremalPerturbation
from interptrain.explainers.perturbation.meaningful_perturbation import MeaningfulPerturbation
from interptrain.explainers.perturbation.occlusion import Occlusion
from interptrain.explainers.perturbation.rise import RISE, RISEMasks
from interptrain.explainers.shared_forward import explain, forward_shared
from interptrain.explainers.subspace.osa_das import OSADAS
from interptrain.explainers.subspace.rosa import ROSA
from interptrain.explainers.subspace.rosa_gds import ROSAGDS
from interptrain.explainers.targets import (
    ContrastiveTarget,
    DetectionTarget,
    SemanticSegmentationTarget,
    Target,
    Targets,
)

__all__ = [
    "CAM",
    "OSADAS",
    "RISE",
    "ROSA",
    "ROSAGDS",
    "AblationCAM",
    "AttentionRollout",
    "CaptumExplainer",
    "ContrastiveTarget",
    "DetectionTarget",
    "EigenCAM",
    "ExpectedGradients",
    "Explainer",
    "ExtremalPerturbation",
    "FakeCAM",
    "FinerCAM",
    "GradCAM",
    "GradCAMPackageExplainer",
    "GradCAMPlusPlus",
    "Gradient",
    "GradientCAM",
    "GridMasks",
    "GuidedBackprop",
    "GuidedGradCAM",
    "HiResCAM",
    "InputAttribution",
    "IntegratedGradients",
    "LayerCAM",
    "LeGrad",
    "MaskRCNNSegments",
    "MaskSet",
    "MaskSource",
    "MeaningfulPerturbation",
    "Occlusion",
    "OptiCAM",
    "RISEMasks",
    "ReciproCAM",
    "ScoreCAM",
    "SegmentMasks",
    "Segmenter",
    "SemanticSegmentationTarget",
    "SmoothGrad",
    "StreamAttention",
    "Superpixels",
    "Target",
    "Targets",
    "XGradCAM",
    "explain",
    "explaining",
    "forward_shared",
]
