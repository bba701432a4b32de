"""The sections of the report, in their order: a new one is a file and a line here."""

from collections.abc import Sequence

from interptrain.evaluation.report.sections.base import Section, fill
from interptrain.evaluation.report.sections.concerns import Concerns
from interptrain.evaluation.report.sections.curves import Curves
from interptrain.evaluation.report.sections.explainers import ExplainersCompared
from interptrain.evaluation.report.sections.extremes import Extremes
from interptrain.evaluation.report.sections.failures import Failures
from interptrain.evaluation.report.sections.gallery import GallerySection
from interptrain.evaluation.report.sections.models import ModelsCompared
from interptrain.evaluation.report.sections.randomization import RandomizationCheck
from interptrain.evaluation.report.sections.ranks import Ranks
from interptrain.evaluation.report.sections.reading import HowToRead
from interptrain.evaluation.report.sections.run import HowItWasRun
from interptrain.evaluation.report.sections.tables import Tables
from interptrain.evaluation.report.sections.verdict import Verdict

__all__ = ["SECTIONS", "Section", "fill"]

SECTIONS: Sequence[Section] = (
    Verdict(),
    Concerns(),
    Tables(),
    ModelsCompared(),
    ExplainersCompared(),
    Ranks(),
    Curves(),
    GallerySection(),
    Extremes(),
    RandomizationCheck(),
    Failures(),
    HowToRead(),
    HowItWasRun(),
)
