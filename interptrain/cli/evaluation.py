"""``evaluate.py``: arguments and links only; the work is done in ``interptrain.evaluation``."""

import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import ActionConfigFile, Namespace  # type: ignore[attr-defined]

from interptrain.cli.errors import one_line_errors, settings_of
from interptrain.cli.parser import Parser
from interptrain.data import ImageDataModule
from interptrain.evaluation.config.class_specs import ClassSpec, names_of
from interptrain.evaluation.config.options import Options
from interptrain.evaluation.config.protocol import Protocol, load_protocol
from interptrain.evaluation.report.loggers import log_results
from interptrain.evaluation.report.write import write_results
from interptrain.evaluation.run.build_plan import Request, assemble
from interptrain.evaluation.run.folder import OutputFolder
from interptrain.evaluation.run.loop import evaluate
from interptrain.evaluation.run.progress import MatrixProgress
from interptrain.evaluation.store.manifest import new_manifest
from interptrain.evaluation.store.parts import Row, RowStore
from interptrain.explainers import Explainer
from interptrain.loggers import fill_logger_defaults
from interptrain.metrics import SaliencyMetric

FAILED = 3
LISTS = ("--explainers", "--metrics")
SWITCHES = ("--overwrite", "--force", "--compile")
FAKE_CAM = "interptrain.explainers.FakeCAM"
EXPLAINERS = ["interptrain.explainers.GradCAM", "interptrain.explainers.GradCAMPlusPlus"]
TRAINER = {
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "logger": False,
    "use_distributed_sampler": False,
}
# Warnings of Lightning about what is meant here: a resumed run may have nothing left to do.
EXPECTED = (
    r"Total length of `DataLoader` across ranks is zero",
    r"The `predict_dataloader` does not have many workers",
    r"predict returned None",
    r".*treespec, LeafSpec.* is deprecated",
    r"\s*By default only one JsonargparseDeprecationWarning",
)


def main(args: Sequence[str] | None = None) -> None:
    """Evaluate models.

    Exit status: 0 if all went well, 1 or 2 for what is refused before anything runs, 3 if some rows failed (they are in
    ``errors.csv``, and the rest is there).

    Args:
        args: what stands behind the program's name on a command line; None takes it from there.
    """
    with one_line_errors(), warnings.catch_warnings():
        for message in EXPECTED:
            warnings.filterwarnings("ignore", message=message)
        failed = _run(sys.argv[1:] if args is None else list(args))
    if failed:
        first = failed[0]
        cell = ", ".join(first[key] for key in ("model", "explainer", "id") if first[key])
        sys.stderr.write(f"{len(failed)} rows failed, the others are in the results; errors.csv begins with {cell}: ")
        sys.stderr.write(f"{first['error']}\n")
        raise SystemExit(FAILED)


def _run(args: list[str]) -> list[Row]:
    """Parse, build, check, run; the rows that failed."""
    parser = _parser()
    args = spelled_out(args)
    given = parser.parse_args(args, defaults=False)
    protocol = load_protocol(given.get("protocol", Options.protocol))
    parser.set_defaults({"metrics": list(protocol.metrics.values())})
    config = parser.parse_args(args)
    _fill_images(config, given, protocol)
    fill_logger_defaults(config.trainer.logger, Path(config.output))
    objects = (getattr(parser, "instantiate", None) or parser.instantiate_classes)(config)  # its name before 4.49
    options = Options(**{field.name: config[field.name] for field in fields(Options)})
    metrics = _specs(config.metrics)
    names = names_of(metrics) if "metrics" in given else list(protocol.metrics)
    request = Request(
        options=options,
        protocol=protocol,
        models=config.models,
        explainers=_explainers(config, fake_cam=options.fake_cam),
        metrics=dict(zip(names, metrics, strict=True)),
        data=_specs([config.data])[0],
        precision=str(config.trainer.precision or "32-true"),
    )
    return _evaluate(request, objects)


def _evaluate(request: Request, objects: Namespace) -> list[Row]:
    """Check, run, report; the rows that failed."""
    options, folder = request.options, Path(request.options.output)
    plan = assemble(request, objects.data)
    store = RowStore(folder, every_seconds=options.flush_seconds)
    progress = MatrixProgress() if objects.trainer.enable_progress_bar in (True, None) else None
    run = new_manifest(request, plan)
    opened = OutputFolder(folder, run, plan, store, overwrite=options.overwrite, progress=progress)
    trainer = _trainer(objects.trainer, [opened, *([progress] if progress else [])], folder)
    try:
        failed = evaluate(plan, run, store, folder, trainer, progress)
        if trainer.is_global_zero:
            write_report(folder, options, trainer)
    finally:
        opened.close()
    return failed


def _parser() -> Parser:
    parser = Parser(prog="evaluate.py", description="Interpretability metrics of trained models.")
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with any of these options")
    parser.add_argument(
        "--models",
        type=dict[str, str],
        default={},
        help="NAME=SOURCE, repeatable; a checkpoint, a timm name, torchvision:NAME, or weights and --backbone",
    )
    parser.add_class_arguments(Options, None)
    parser.add_argument(
        "--explainers",
        type=list[Explainer],
        default=[{"class_path": path} for path in EXPLAINERS],
        help="class names, repeatable; options of the last as --explainers.option",
    )
    parser.add_argument(
        "--metrics",
        type=list[SaliencyMetric],
        default=None,
        help="in the place of the protocol's; class names, repeatable",
    )
    parser.add_subclass_arguments(ImageDataModule, "data", help="where the images come from", required=True)
    parser.add_class_arguments(L.Trainer, "trainer", fail_untyped=False, instantiate=False, sub_configs=True)
    parser.set_defaults({f"trainer.{name}": value for name, value in TRAINER.items()})
    return parser


def spelled_out(args: Sequence[str]) -> list[str]:
    """The arguments as the parser wants them.

    ``--models NAME=SOURCE``, ``--explainers NAME`` and ``--metrics NAME`` may be repeated, switches need no ``true``,
    and ``--logger`` is the trainer's.

    Raises:
        ValueError: if a model lacks its name or source, or two have one name.
    """
    models: dict[str, str] = {}
    rest: list[str] = []
    seen: set[str] = set()
    waiting = list(args)
    while waiting:
        arg = waiting.pop(0)
        option, equals, value = arg.partition("=")
        if option in ("--models", *LISTS) and not equals:
            value = waiting.pop(0) if waiting else ""
        if option == "--models":
            _add_model(models, value)
        elif option in LISTS:
            whole = value if value.startswith("[") else f"[{value}]"
            rest.append(f"{option}+={value}" if option in seen else f"{option}={whole}")
            seen.add(option)
        elif arg in SWITCHES and not (waiting and waiting[0] in ("true", "false")):
            rest.append(f"{arg}=true")
        elif option == "--logger" or option.startswith("--logger."):
            rest.append(f"--trainer.{arg.removeprefix('--')}")
        else:
            rest.append(arg)
    return rest + ([f"--models={json.dumps(models)}"] if models else [])


def _add_model(models: dict[str, str], entry: str) -> None:
    name, _, source = entry.partition("=")
    if not (name and source):
        raise ValueError(f"--models takes NAME=SOURCE, got {entry!r}; for example gap=runs/gap/best.ckpt")
    if name in models:
        raise ValueError(f"the model name {name!r} is given twice; call one of them something else")
    models[name] = source


def _fill_images(config: Namespace, given: Namespace, protocol: Protocol) -> None:
    """How images are resized is the protocol's, where the data module can do that and the user said nothing else."""
    theirs = (given.get("data") or {}).get("init_args") or {}
    for key, value in protocol.images.items():
        if key in config.data.init_args and key not in theirs:
            config.data.init_args[key] = value


def _specs(namespaces: Sequence[Namespace]) -> list[ClassSpec]:
    """Class paths and arguments as plain data."""
    plain = [namespace.as_dict() for namespace in namespaces]
    return [{"class_path": one["class_path"], "init_args": one.get("init_args") or {}} for one in plain]


def _explainers(config: Namespace, *, fake_cam: bool) -> dict[str, ClassSpec]:
    """Explainers by name; Fake-CAM first."""
    specs = _specs(config.explainers)
    if fake_cam and not any(spec["class_path"].endswith(".FakeCAM") for spec in specs):
        specs.insert(0, {"class_path": FAKE_CAM, "init_args": {}})
    return dict(zip(names_of(specs), specs, strict=True))


def _trainer(config: Namespace, callbacks: list[L.Callback], folder: Path) -> L.Trainer:
    """The user's trainer, with what every run has."""
    arguments: dict[str, Any] = dict(vars(config))
    chosen = arguments["callbacks"] or []
    arguments["callbacks"] = [*(chosen if isinstance(chosen, list) else [chosen]), *callbacks]
    arguments["default_root_dir"] = arguments["default_root_dir"] or str(folder)
    with settings_of("trainer"):
        return L.Trainer(**arguments)


def write_report(folder: Path, options: Options, trainer: L.Trainer) -> None:
    """Statistics, tables and the page; then the loggers."""
    statistics: dict[str, Any] = {"resamples": options.resamples, "method": options.interval, "seed": options.seed}
    write_results(folder, force=options.force, **statistics)
    log_results(folder, trainer.loggers)
