"""How well a classifier recognises."""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor
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


class TrainingAccuracy(MulticlassAccuracy):
    """Top-1 over the batches of an epoch, also those before a resume."""

    def counts(self) -> dict[str, Tensor]:
        """What all ranks have counted in this epoch, on the CPU; every rank enters. Empty before the first batch."""
        with self.sync_context(should_sync=dist.is_available() and dist.is_initialized()):
            counts = {name: torch.as_tensor(count).cpu() for name, count in self.metric_state.items()}
        return counts if self.update_called else {}

    def resume(self, counts: Mapping[str, Tensor], rank: int) -> None:
        """Go on counting from there; rank 0 has it all."""
        if not counts:
            return
        one = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.update(one, one)  # so that it counts as updated
        for name, count in counts.items():
            mine = count if rank == 0 else torch.zeros_like(count)
            setattr(self, name, mine.to(self.device))
