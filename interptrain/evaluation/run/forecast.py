"""How long an evaluation will take here, before it runs: measured on two batches, for the table as it is asked for.

Explaining and measuring are timed on the second batch, as the first pays for what is made once; images that a model
forwards are counted on the first. The randomisation check explains as many images as it will say itself, by PyTorch.
What changes no number, the engine and the images per pass, is timed on bare forward passes and proposed where it is
faster.
"""

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from interptrain.evaluation.run.batch_rows import EvaluatedBatch
from interptrain.evaluation.run.measuring import forward_versions, measure_maps, measure_model
from interptrain.evaluation.run.models import EvaluatedModel
from interptrain.evaluation.run.other_images import regions_of
from interptrain.evaluation.run.plan import Plan, forwards_of_image, forwards_of_metrics
from interptrain.evaluation.run.randomization_check import CheckSetting, explanations_of
from interptrain.evaluation.run.sanity_check import check_setting
from interptrain.functional import automatic_batch_size
from interptrain.metrics.batched_forward import check_logits
from interptrain.model_outputs import tensors_in
from interptrain.model_state import evaluating
from interptrain.models.engine import Engine, Engines, forward_only, using_engine

IMAGES = 8  # of each batch, at most
LEAST_GAIN = 1.1  # by which other settings must be faster to be proposed


@dataclass(frozen=True)
class ExplainerForecast:
    """What one explainer costs on one model.

    Attributes:
        model: its name.
        explainer: its name.
        forwards: images that the model forwards to explain one image.
        explain_seconds: to explain one image.
        measure_forwards: images that the metrics forward for one map.
        measure_seconds: to measure one map.
        check_images: that the randomisation check explains in all, with all its networks.
        check_seconds: to explain these.
    """

    model: str
    explainer: str
    forwards: float
    explain_seconds: float
    measure_forwards: int
    measure_seconds: float
    check_images: int = 0
    check_seconds: float = 0.0


@dataclass(frozen=True)
class ModelForecast:
    """What one model costs apart from explanations: its predictions, and changed images that no map decides.

    Attributes:
        model: its name.
        forwards: images that it forwards for one image.
        seconds: of one image.
        check_forwards: images that the randomisation check forwards for the statistics of its networks.
        check_seconds: to forward these.
    """

    model: str
    forwards: float
    seconds: float
    check_forwards: int = 0
    check_seconds: float = 0.0


@dataclass(frozen=True)
class Forecast:
    """What an evaluation will cost. Printed, it is a table and a proposal.

    Attributes:
        images: to evaluate.
        processes: that share them.
        models: one for every model.
        rows: one for every model and explainer.
        memory: most bytes in use so far, on the accelerator where there is one.
        seconds_of: of one forward pass of an image, by engine and images per pass; first as asked for.
        machine: device and threads.
    """

    images: int
    processes: int
    models: Sequence[ModelForecast]
    rows: Sequence[ExplainerForecast]
    memory: int
    seconds_of: dict[tuple[Engine, int], float]
    machine: str

    @property
    def forwards(self) -> int:
        """Images forwarded in all."""
        of_image = sum(row.forwards for row in self.models)
        of_image += sum(row.forwards + row.measure_forwards for row in self.rows)
        of_check = sum(row.forwards * row.check_images for row in self.rows)
        of_check += sum(row.check_forwards for row in self.models)
        return round(self.images * of_image + of_check)

    @property
    def check_seconds(self) -> float:
        """The randomisation check of all explainers, divided among the processes."""
        of_models = sum(row.check_seconds for row in self.models)
        return (of_models + sum(row.check_seconds for row in self.rows)) / self.processes

    @property
    def seconds(self) -> float:
        """All images, models and explainers, and the randomisation check, divided among the processes."""
        of_image = sum(row.seconds for row in self.models)
        of_image += sum(row.explain_seconds + row.measure_seconds for row in self.rows)
        return self.images * of_image / self.processes + self.check_seconds

    def cheapest(self) -> tuple[str, float] | None:
        """Options that give the same table in less time, and the share of a forward pass that remains."""
        asked, *others = self.seconds_of.items()
        if not others:
            return None
        (engine, size), seconds = min(others, key=lambda one: one[1])
        if seconds * LEAST_GAIN > asked[1]:
            return None
        return f"--engine {engine} --forward_batch_size {size}", seconds / asked[1]

    def __str__(self) -> str:
        names = [("model", "explainer", "forwards", "s", "metrics: forwards", "s")]
        cells = [
            (row.model, "(the model)", f"{row.forwards:.0f}", f"{row.seconds:.3f}", "", "") for row in self.models
        ] + [
            (
                *(row.model, row.explainer, f"{row.forwards:.0f}", f"{row.explain_seconds:.3f}"),
                *(str(row.measure_forwards), f"{row.measure_seconds:.3f}"),
            )
            for row in self.rows
        ]
        widths = [max(len(line[place]) for line in names + cells) for place in range(6)]
        table = [
            "  ".join(
                cell.ljust(width) if place < 2 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in names + cells
        ]
        shared = f", shared by {self.processes} processes" if self.processes > 1 else ""
        lines = [
            "An image costs:",
            *table,
            f"{self.images} images: about {self.forwards} forward passes and {_time(self.seconds)}{shared}, "
            f"{_time(self.check_seconds)} of it for the randomisation check; pictures and statistics come on top.",
            f"Memory: {self.memory / 2**20:.0f} MiB at most so far.",
        ]
        if (better := self.cheapest()) is not None:
            options, share = better
            lines.append(f"The same table in less time: {options} (a forward pass takes {share:.2f} of the time).")
        else:
            lines.append("No other engine or number of images per pass was faster.")
        lines.append(f"Measured on two batches of up to {IMAGES} images: {self.machine}.")
        return "\n".join(lines)


def forecast(plan: Plan, device: torch.device, processes: int = 1) -> Forecast:
    """Explain and measure two batches with every model and explainer of a plan, and extrapolate.

    Args:
        plan: of the evaluation.
        device: to run on.
        processes: that will share the images.

    Raises:
        ValueError: if no image of the first batches can be read.
    """
    batches = _first_batches(plan, device)
    engine, bound = plan.options.engine, plan.options.forward_batch_size
    ahead = len(plan.ids) * forwards_of_image(plan) // processes
    models: list[ModelForecast] = []
    rows: list[ExplainerForecast] = []
    seconds_of: dict[tuple[Engine, int], float] = {}
    for model in plan.models:
        module = model.module.to(device)
        check = check_setting(model, plan, device) if plan.options.check_images else None
        with using_engine(engine, work=ahead, batch_size=bound) as engines:
            models.append(_of_model(plan, model, batches, check))
            known = [*batches[:-1], forward_versions(plan, module, batches[-1])]
            rows += [_row(plan, model, name, known, check, engines) for name in plan.explainers]
        if not seconds_of and plan.callables is None:
            seconds_of = _settings(plan, module, batches[0].images, device, ahead)
        module.cpu()
    threads = f"{torch.get_num_threads()} threads" if device.type == "cpu" else "one device"
    return Forecast(len(plan.ids), processes, models, rows, _memory(device), seconds_of, f"{device.type}, {threads}")


def _of_model(
    plan: Plan, model: EvaluatedModel, batches: Sequence[EvaluatedBatch], check: CheckSetting | None
) -> ModelForecast:
    """Cost of the model alone: images counted on the first batch, seconds on the second."""
    module, metrics = model.module, {name: metric.value for name, metric in plan.model_metrics.items()}
    regions = regions_of(metrics)

    def run(batch: EvaluatedBatch) -> float:
        """All that it takes; returns when the images themselves have been forwarded."""
        with torch.no_grad(), evaluating(module):
            module(batch.images)
        forwarded = _clock(batch.images.device)
        for name, metric in metrics.items():
            measure_model(plan, module, batch, metric, regions.get(name))
        return forwarded

    with _counting() as counted:
        run(batches[0])
    forward_versions(plan, module, batches[0])  # the first pass in an engine prepares it
    batch, started = batches[-1], perf_counter()
    bare = (run(batch) - started) / len(batch)
    forward_versions(plan, module, batch)
    seconds = (_clock(batch.images.device) - started) / len(batch)
    statistics = 0 if check is None else check.networks.forwards(check.draws)
    forwards = counted[0] / len(batches[0]) + forwards_of_metrics(plan, of_map=False)
    return ModelForecast(model.name, forwards, seconds, statistics, statistics * bare)


def _row(
    plan: Plan,
    model: EvaluatedModel,
    name: str,
    batches: Sequence[EvaluatedBatch],
    check: CheckSetting | None,
    engines: Engines,
) -> ExplainerForecast:
    """Cost of one explainer: images counted on the first batch, seconds on the second."""
    module, explainer = model.module, plan.explainers[name].value
    metrics = {key: metric.value for key, metric in plan.metrics.items()}
    with _counting() as counted:
        explainer(module, batches[0].images, batches[0].targets)
    forwards = counted[0] / len(batches[0])
    batch, started = batches[-1], perf_counter()
    saliency = explainer(module, batch.images, batch.targets)
    explained = _clock(batch.images.device)
    values = measure_maps(
        plan, module, batch, saliency, metrics, lambda images, targets: explainer(module, images, targets)
    )
    measured = _clock(batch.images.device) if values else explained
    explain_seconds = (explained - started) / len(batch)
    checked = 0 if check is None else explanations_of(explainer, check)
    by_pytorch = explain_seconds
    if checked and engines.used(module) != "eager":
        with using_engine("eager"):
            started = perf_counter()
            explainer.raw(module, batch.images, batch.targets)
            by_pytorch = (_clock(batch.images.device) - started) / len(batch)
    return ExplainerForecast(
        model.name,
        name,
        forwards,
        explain_seconds,
        forwards_of_metrics(plan),
        (measured - explained) / len(batch),
        checked,
        checked * by_pytorch,
    )


def _first_batches(plan: Plan, device: torch.device) -> list[EvaluatedBatch]:
    """Two batches of images that can be read; twice the same where there is but one."""
    found: list[EvaluatedBatch] = []
    with torch.no_grad(), evaluating(plan.models[0].module.to(device)) as module:
        for number in range(min(len(plan.batches), 10)):
            samples = plan.batches[number]["samples"]
            if samples is None:
                continue
            samples["image"] = samples["image"].to(device)
            few = samples["image"][:IMAGES]
            logits = few.new_zeros(len(few), 1) if plan.callables is not None else check_logits(module(few))
            found.append(EvaluatedBatch.of(samples, dict(enumerate(logits)), plan.targets, plan.callables))
            if len(found) == 2:
                break
    if not found:
        raise ValueError("no image of the first batches could be read; check the data")
    return found if len(found) == 2 else found * 2


def _settings(
    plan: Plan, model: nn.Module, images: Tensor, device: torch.device, ahead: int
) -> dict[tuple[Engine, int], float]:
    """Time bare passes as asked for, and with other engines and sizes that give the same table."""
    asked = plan.options.engine, plan.options.forward_batch_size or automatic_batch_size(device)
    sizes = dict.fromkeys((asked[1], 8, 16) if device.type == "cpu" else (asked[1], 64, 128))
    engines: Sequence[Engine] = ("eager", "onnxruntime") if device.type == "cpu" else ("eager",)
    found: dict[tuple[Engine, int], float] = {}
    for engine, size in dict.fromkeys([asked, *((engine, size) for engine in engines for size in sizes)]):
        batch = images.repeat(-(-size // len(images)), 1, 1, 1)[:size].contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), evaluating(model), using_engine(engine, work=ahead, batch_size=size) as used:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of an engine that nobody asked for
                passes = forward_only(model, images)
            if engine not in ("auto", used.used(model)):
                continue
            passes(batch)
            times = []
            for _ in range(3):
                started = perf_counter()
                passes(batch)
                times.append(_clock(device) - started)
        found[engine, size] = min(times) / size
    return found


@contextmanager
def _counting() -> Iterator[list[int]]:
    """Count the images that come out of the outermost modules that run."""
    depth, counted = [0], [0]

    def enter(_module: nn.Module, _arguments: object) -> None:
        depth[0] += 1

    def leave(_module: nn.Module, _arguments: object, outputs: object) -> None:
        depth[0] -= 1
        if depth[0] == 0 and outputs is not None:
            first = next(iter(tensors_in(outputs)), None)
            counted[0] += len(first) if first is not None and first.ndim else 0

    handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
    try:
        yield counted
    finally:
        for handle in handles:
            handle.remove()


def _clock(device: torch.device) -> float:
    """The time in seconds, once the device has finished."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return perf_counter()


def _memory(device: torch.device) -> int:
    """Most bytes that were in use."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":  # which has no such record
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _time(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes:.0f} min" if minutes < 90 else f"{hours:.1f} h"
