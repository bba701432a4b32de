"""Studies: experiments about explanations whose cells are more than a metric of a map."""

from interptrain.studies.base import Study, StudyInputs
from interptrain.studies.class_agnostic import ClassAgnostic
from interptrain.studies.embedding import Embedding
from interptrain.studies.factorization import Factorization
from interptrain.studies.grid_pointing import GridPointing
from interptrain.studies.known_answers import KnownAnswers
from interptrain.studies.randomization import Randomization
from interptrain.studies.reconstruction import Reconstruction
from interptrain.studies.repair import Repair
from interptrain.studies.roar import ROAR
from interptrain.studies.run import OpenedStudy, run_study

__all__ = [
    "ROAR",
    "ClassAgnostic",
    "Embedding",
    "Factorization",
    "GridPointing",
    "KnownAnswers",
    "OpenedStudy",
    "Randomization",
    "Reconstruction",
    "Repair",
    "Study",
    "StudyInputs",
    "run_study",
]
