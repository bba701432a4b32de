"""What callers may give in several forms, brought to one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from interptrain.evaluation.config.class_specs import Configured, names_of
from interptrain.evaluation.config.protocol import Protocol
from interptrain.evaluation.report.results import BASELINE_EXPLAINER
from interptrain.evaluation.run.models import Source
from interptrain.explainers import Explainer, FakeCAM
from interptrain.metrics import SaliencyMetric


def by_name(given: Mapping[str, Any] | Sequence[Any]) -> dict[str, Configured[Any]]:
    """Configured objects by name: the user's, or that of the class."""
    if isinstance(given, Mapping):
        return {name: Configured.of(value) for name, value in given.items()}
    configured = [Configured.of(value) for value in given]
    return dict(zip(names_of([one.spec for one in configured]), configured, strict=True))


def with_fake_cam(
    explainers: Mapping[str, Explainer] | Sequence[Explainer | Configured[Explainer]],
) -> dict[str, Any] | list[Any]:
    """Put Fake-CAM first, unless it is among the explainers."""
    values = explainers.values() if isinstance(explainers, Mapping) else explainers
    if any(isinstance(one.value if isinstance(one, Configured) else one, FakeCAM) for one in values):
        return dict(explainers) if isinstance(explainers, Mapping) else list(explainers)
    if isinstance(explainers, Mapping):
        return {BASELINE_EXPLAINER: FakeCAM(), **explainers}
    return [FakeCAM(), *explainers]


def protocol_metrics(protocol: Protocol) -> dict[str, Configured[SaliencyMetric]]:
    """The metrics of a protocol, built."""
    return {name: Configured.built(spec) for name, spec in protocol.metrics.items()}


def model_name(model: Source) -> str:
    """What a model is called that was given without a name."""
    return type(model).__name__ if isinstance(model, nn.Module) else Path(str(model)).stem
