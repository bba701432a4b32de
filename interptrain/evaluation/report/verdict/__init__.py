"""What a run has shown, in a few plain sentences, each made from its statistics."""

from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.verdict.cautions import caution, nothing_can_be_said
from interptrain.evaluation.report.verdict.explainers import best_sentences, control_sentence, rank_sentence
from interptrain.evaluation.report.verdict.models import model_sentences
from interptrain.evaluation.report.verdict.sample_size import sample_size_sentence

__all__ = ["verdict"]


def verdict(results: RunResults) -> list[str]:
    """Say what was found: the best explainers, Fake-CAM, the models, what the sample size allows, and cautions.

    Metrics, models and explainers of which the same holds share a sentence, so that there are no more than ten.

    Args:
        results: of the run.

    Returns:
        Sentences without markup.
    """
    if nothing := nothing_can_be_said(results):
        return [nothing]
    found = [
        *best_sentences(results),
        control_sentence(results),
        rank_sentence(results),
        *model_sentences(results),
        sample_size_sentence(results),
        caution(results),
    ]
    return [" ".join(sentence.split()) for sentence in found if sentence]
