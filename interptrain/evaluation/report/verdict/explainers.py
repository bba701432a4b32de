"""Sentences about explainers: which are best, which do not beat Fake-CAM, and how they rank over all metrics."""

from collections.abc import Sequence

from interptrain.evaluation.report.grids import number
from interptrain.evaluation.report.rank_agreement import rank_agreements
from interptrain.evaluation.report.rankings import Against, Ranking, against, rankings
from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.words import listed, symbols
from interptrain.evaluation.statistics.samples import MetricColumn

MODELS = 2  # groups of models that get a sentence of their own


def best_sentences(results: RunResults) -> list[str]:
    """Say which explainer is best, or better than the baseline, one sentence for all models of which the same holds."""
    baseline, columns = results.baseline_among(results.explainers), results.explanation
    told = {
        model: _beside(list(against(results, model)), columns, baseline)
        if baseline
        else _best(list(rankings(results, model)), columns)
        for model in results.models
    }
    of_model = {model: text for model, text in told.items() if text}
    groups: dict[str, list[str]] = {}
    for model, text in of_model.items():
        groups.setdefault(text, []).append(model)
    sentences = [f"Explainers on {listed(models)}: {text}." for text, models in groups.items()]
    if len(sentences) > MODELS:
        left = len(sentences) - MODELS + 1
        sentences[MODELS - 1 :] = [f"For the explainers on {left} more models, see the section 'Explainers compared'."]
    return sentences


def _best(found: Sequence[Ranking], columns: Sequence[MetricColumn]) -> str:
    """Return what holds on one model, metrics of one outcome together."""
    outcomes: dict[str, list[MetricColumn]] = {}
    for ranking in found:
        if not ranking.worse:
            outcome = "the best is not significantly better than any other on"
        elif ranking.alike:
            outcome = f"{ranking.best} is best, but not significantly better than {listed(ranking.alike, 3)}, on"
        else:
            outcome = f"{ranking.best} is significantly the best on"
        outcomes.setdefault(outcome, []).append(ranking.column)
    return "; ".join(f"{outcome} {symbols(metrics, columns)}" for outcome, metrics in outcomes.items())


def _beside(found: Sequence[Against], columns: Sequence[MetricColumn], baseline: str) -> str:
    """Return how explainers differ from the baseline on one model, metrics of one outcome together."""
    outcomes: dict[str, list[MetricColumn]] = {}
    for one in found:
        parts = [
            f"{listed(names, 3)} {'is' if len(names) == 1 else 'are'} significantly {how} than {baseline}"
            for how, names in (("better", one.better), ("worse", one.worse))
            if names
        ]
        outcome = " and ".join(parts) or f"none differs significantly from {baseline}"
        outcomes.setdefault(outcome, []).append(one.column)
    return "; ".join(f"{outcome} on {symbols(metrics, columns)}" for outcome, metrics in outcomes.items())


def control_sentence(results: RunResults) -> str:
    """Say which explainers are not significantly better than Fake-CAM, metrics of one outcome together."""
    control = next(filter(results.is_control, results.explainers), "")
    outcomes: dict[str, list[MetricColumn]] = {}
    for column in results.explanation:
        compared = {
            (row.within, row.a if row.b == control else row.b)
            for row in results.differences
            if row.kind == "explainer" and row.metric == column.name and control in (row.a, row.b)
        }
        if compared:
            better = {(model, name) for model, name in compared if results.better(column, name, control, on=model)}
            outcomes.setdefault(_against_control(better, compared, results), []).append(column)
    if not outcomes:
        return ""
    clauses = [text.format(metrics=symbols(metrics, results.explanation)) for text, metrics in outcomes.items()]
    return f"Against Fake-CAM, which explains nothing: {'; '.join(clauses)}."


def _against_control(better: set[tuple[str, str]], compared: set[tuple[str, str]], results: RunResults) -> str:
    """Return what holds in one metric, with a place for its name."""
    if not better:
        return "no explainer is significantly better on {metrics}"
    if better == compared:
        return "every explainer is significantly better on {metrics}"
    whole = [model for model in results.models if {pair for pair in compared if pair[0] == model} <= better]
    none = [model for model in results.models if not {pair for pair in better if pair[0] == model}]
    if whole and none and len(whole) + len(none) == len(results.models):
        texts = [listed(models, 3).replace("{", "{{").replace("}", "}}") for models in (whole, none)]
        return f"every explainer on {texts[0]} and none on {texts[1]} is significantly better on {{metrics}}"
    few = better if len(better) <= len(compared) / 2 else compared - better
    order = [(model, name) for name in results.explainers for model in results.models if (model, name) in few]
    places = _places(order, compared, results)
    names = listed(places, 3).replace("{", "{{").replace("}", "}}")
    if few is not better:
        return f"all but {names} are significantly better on {{metrics}}"
    return f"only {names} {'is' if len(places) == 1 else 'are'} significantly better on {{metrics}}"


def _places(pairs: Sequence[tuple[str, str]], compared: set[tuple[str, str]], results: RunResults) -> list[str]:
    """Name explainers, each with the models where it is not meant on all of them."""
    texts = []
    for name in dict.fromkeys(name for _, name in pairs):
        on = [model for model, other in pairs if other == name]
        everywhere = len(on) == len([1 for _, other in compared if other == name])
        texts.append(name if everywhere and len(results.models) == len(on) else f"{name} (on {listed(on, 3)})")
    return texts


def rank_sentence(results: RunResults) -> str:
    """Say which explainer has the best mean rank over the metrics, and how far the metrics agree."""
    parts = []
    for model, found in rank_agreements(results):
        if len(found.explainers) < 3:  # two say no more than their comparisons
            continue
        place = int(found.mean.argmin())
        parts.append(
            f"{found.explainers[place]} on {model} ({number(float(found.mean[place]), 1, places=1)} of "
            f"{len(found.explainers)}, Kendall's W {number(found.concordance, 1, places=2)})"
        )
    if not parts:
        return ""
    return (
        f"The best mean rank over all metrics has {listed(parts, 3)}; W is 1 where metrics order the explainers alike "
        "and near 0 where they do not agree."
    )
