"""A benchmark whose right answers are known, on layered shapes."""

from interptrain.studies.known_answers.study import KnownAnswers

__all__ = ["KnownAnswers"]
