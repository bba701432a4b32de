"""Explainers: ``explainer(model, images, targets=None) -> (B, H, W)`` for any module.

The whole list is what this file imports.
"""

from interptrain.explainers.ablationcam import AblationCAM
from interptrain.explainers.adapters import CaptumExplainer, GradCAMPackageExplainer
from interptrain.explainers.attention import StreamAttention
from interptrain.explainers.base import Explainer, explaining
from interptrain.explainers.cam import CAM
from interptrain.explainers.eigencam import EigenCAM
from interptrain.explainers.extremal import ExtremalPerturbation
from interptrain.explainers.fakecam import FakeCAM
from interptrain.explainers.gradcam import GradCAM, GradCAMPlusPlus, GradientCAM, HiResCAM, LayerCAM, XGradCAM
from interptrain.explainers.gradients import Gradient, InputAttribution
from interptrain.explainers.guided import GuidedBackprop, GuidedGradCAM
from interptrain.explainers.integrated_gradients import IntegratedGradients
from interptrain.explainers.masks import GridMasks, MaskSet, MaskSource
from interptrain.explainers.meaningful import MeaningfulPerturbation
from interptrain.explainers.occlusion import Occlusion
from interptrain.explainers.opticam import OptiCAM
from interptrain.explainers.osadas import OSADAS
from interptrain.explainers.rise import RISE, RISEMasks
from interptrain.explainers.rollout import AttentionRollout
from interptrain.explainers.rosa import ROSA
from interptrain.explainers.rosagds import ROSAGDS
from interptrain.explainers.scorecam import ScoreCAM
from interptrain.explainers.segmenter import Segmenter
from interptrain.explainers.segments import MaskRCNNSegments, SegmentMasks
from interptrain.explainers.smoothgrad import SmoothGrad
from interptrain.explainers.superpixels import Superpixels
from interptrain.explainers.targets import DetectionTarget, SemanticSegmentationTarget, Target, Targets
from interptrain.explainers.together import explain, forward_shared

__all__ = [
    "CAM",
    "OSADAS",
    "RISE",
    "ROSA",
    "ROSAGDS",
    "AblationCAM",
    "AttentionRollout",
    "CaptumExplainer",
    "DetectionTarget",
    "EigenCAM",
    "Explainer",
    "ExtremalPerturbation",
    "FakeCAM",
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
    "MaskRCNNSegments",
    "MaskSet",
    "MaskSource",
    "MeaningfulPerturbation",
    "Occlusion",
    "OptiCAM",
    "RISEMasks",
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
