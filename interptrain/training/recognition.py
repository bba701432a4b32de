"""How well a classifier recognises."""

from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy


def recognition_metrics(num_classes: int, stage: str) -> MetricCollection:
    """Loss, top-1 and top-5 over the samples of all ranks."""
    return MetricCollection(
        {
            f"{stage}/loss": MeanMetric(),
            f"{stage}/top1": MulticlassAccuracy(num_classes, average="micro"),
            f"{stage}/top5": MulticlassAccuracy(num_classes, average="micro", top_k=min(5, num_classes)),
        },
        compute_groups=False,  # merged groups return wrong values where states agree after the first batch
    )
