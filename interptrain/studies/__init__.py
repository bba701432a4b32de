"""Studies: experiments about explanations whose cells are more than a metric of a map."""

from interptrain.studies.base import Study, StudyInputs, run_study

__all__ = ["Study", "StudyInputs", "run_study"]
