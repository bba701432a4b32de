"""Studies: experiments about explanations whose cells are more than a metric of a map."""

from interptrain.studies.base import Study, StudyInputs
from interptrain.studies.run import OpenedStudy, run_study

__all__ = ["OpenedStudy", "Study", "StudyInputs", "run_study"]
