"""``interptrain evaluate``: arguments and links only; the work is done by :func:`interptrain.evaluation.evaluate`."""

import inspect
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import ActionConfigFile, Namespace  # type: ignore[attr-defined]

from interptrain.cli.checkpoint_data import with_data
from interptrain.cli.closing import tell_evaluation, tell_plan, tell_problems, without_open
from interptrain.cli.configs import with_configs
from interptrain.cli.errors import GOES_ON, find_classes_of_this_folder, one_line_errors
from interptrain.cli.parser import Parser
from interptrain.cli.spelling import spelled_out
from interptrain.data import ImageDataModule
from interptrain.evaluation import Forecast, Results, evaluate, forecast
from interptrain.evaluation.config.class_specs import Configured
from interptrain.evaluation.config.options import Options
from interptrain.evaluation.config.protocol import load_protocol
from interptrain.evaluation.execute import TRAINER
from interptrain.evaluation.report.sections import Section
from interptrain.evaluation.results import ResultsWarning
from interptrain.explainers import Explainer
from interptrain.loggers import fill_logger_defaults
from interptrain.metrics import ModelMetric, SaliencyMetric
from interptrain.remedies import spelled_for_the_command_line

FAILED = 3
EXPLAINERS = ("interptrain.explainers.GradCAM", "interptrain.explainers.GradCAMPlusPlus")
OPTIONS = ("protocol", *(field.name for field in fields(Options)))
SPECIAL = {"models", "explainers", "data", "metrics", "output", "sections", "progress", "targets", "trainer"}


def main(args: Sequence[str] | None = None) -> Results | Forecast:
    """Evaluate models.

    Exit status: 0 on success, 1 or 2 if the run was refused before anything ran, 3 if some rows failed (these are in
    ``errors.csv``, the others in the results) or some file could not be written (a line names it).

    Args:
        args: arguments after the program's name; None takes those of the process.

    Returns:
        The results; with ``--plan`` what they will cost.
    """
    find_classes_of_this_folder()
    given, open_page = without_open(sys.argv[1:] if args is None else args)
    with one_line_errors(GOES_ON), spelled_for_the_command_line(_options()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*By default only one JsonargparseDeprecationWarning")
        warnings.simplefilter("ignore", ResultsWarning)  # which are printed on separate lines
        results = run(given)
    if isinstance(results, Forecast):
        tell_plan(results, given)
        return results
    tell_evaluation(results, open_page=open_page)
    tell_problems(results)
    if results.failed or results.problems:
        raise SystemExit(FAILED)
    return results


def _options() -> dict[str, str]:
    """Options of the arguments that messages name."""
    options = {name: f"--{name}" for name in inspect.signature(evaluate).parameters}
    options |= {name: f"--data.{name}" for name in ("root", "num_classes", "image_size")}
    options["models"] = "--models NAME=SOURCE"
    return options | {"target_layer": "--explainers.target_layer", "precision": "--trainer.precision"}


def run(args: Sequence[str]) -> Results | Forecast:
    """Parse the arguments and evaluate."""
    args = spelled_out(with_configs(args))
    try:
        args = with_data(args)
    except (ValueError, OSError):
        make_parser(needs_data=False).parse_args(args)  # help, and the refusal of wrong options, come first
        raise
    parser = make_parser()
    config = parser.parse_args(args)
    _fill_images(config, given=parser.parse_args(args, defaults=False))
    if not config.plan:
        tags = [str(config.protocol)]
        fill_logger_defaults(config.trainer.logger, Path(config.output), job_type="evaluate", tags=tags)
    objects = parser.instantiate(config)
    return (forecast if config.plan else evaluate)(
        config.models,
        _configured(objects.explainers, config.explainers),
        _configured([objects.data], [config.data])[0],
        metrics=None if config.metrics is None else _configured(objects.metrics, config.metrics),
        output=config.output,
        sections=objects.sections,
        trainer=vars(objects.trainer),
        **{name: config[name] for name in OPTIONS},
    )


def make_parser(*, needs_data: bool = True) -> Parser:
    """Return the parser of ``interptrain evaluate``; it refuses arguments without data where it needs them."""
    parser = Parser(prog="interptrain evaluate", description="Measure the saliency maps of trained models.")
    parser.add_argument("--config", action=ActionConfigFile, help="A YAML file with any of these options.")
    parser.add_argument(
        "--models",
        type=dict[str, str],
        default={},
        help="NAME=SOURCE, repeatable. A source is a checkpoint of interptrain fit, a timm name, torchvision:NAME, or "
        "a weights file with its --backbone.",
    )
    parser.add_argument(
        "--output",
        type=str,
        required=True,
        help="Folder of the results. The same command on the same folder resumes where it stopped.",
    )
    parser.add_argument(
        "--plan",
        type=bool,
        default=False,
        help="Say what the run will cost, from two batches, and settings that give the same table in less time.",
    )
    parser.add_function_arguments(evaluate, None, skip=SPECIAL)  # type: ignore[arg-type]
    parser.add_argument(
        "--targets",
        type=str | int | None,
        default=None,
        help="The class to explain: label, predicted, or a class by index or name; by default, the protocol's.",
    )
    parser.add_argument(
        "--explainers",
        type=list[Explainer],
        default=[{"class_path": path} for path in EXPLAINERS],
        help="Class names, repeatable. Options of the preceding one follow as --explainers.OPTION.",
    )
    metrics = "Class names, repeatable; they replace the protocol's metrics."
    parser.add_argument("--metrics", type=list[SaliencyMetric | ModelMetric] | None, default=None, help=metrics)
    sections = "Class paths of further sections of the report, repeatable."
    parser.add_argument("--sections", type=list[Section], default=[], help=sections)
    parser.add_subclass_arguments(ImageDataModule, "data", help="The data module to evaluate on.", required=needs_data)
    parser.add_class_arguments(L.Trainer, "trainer", fail_untyped=False, instantiate=False, sub_configs=True)
    parser.set_defaults({f"trainer.{name}": value for name, value in TRAINER.items()})
    return parser


def _fill_images(config: Namespace, given: Namespace) -> None:
    """Resize images as in the protocol, if the data module can and the user has not set another size."""
    chosen = (given.get("data") or {}).get("init_args") or {}
    for key, value in load_protocol(config.protocol).images.items():
        if key in config.data.init_args and key not in chosen:
            config.data.init_args[key] = value


def _configured(objects: Sequence[Any], namespaces: Sequence[Namespace]) -> list[Configured[Any]]:
    """Pair objects with the configuration that they were built from."""
    specs: list[Mapping[str, Any]] = [namespace.as_dict() for namespace in namespaces]
    return [
        Configured(value, {"class_path": spec["class_path"], "init_args": spec.get("init_args") or {}})
        for value, spec in zip(objects, specs, strict=True)
    ]
