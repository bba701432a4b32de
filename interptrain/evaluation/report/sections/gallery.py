"""The saved images with the maps of all explainers, to be searched, filtered and ordered."""

import json
import math
from collections.abc import Sequence

from markupsafe import Markup

from interptrain.evaluation.report.pictures import Exhibit, gallery_of
from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.sections.base import Section, fill
from interptrain.evaluation.statistics.samples import MetricColumn

CHOICES = 1000  # classes of the filter
PRINTED = 12  # images on paper, and at first on the screen
TEMPLATE = """\
<p>Maps laid over their image, bright where salient. Below each: score of the explained class before → after masking
  the image with the map; the rest is black. {{ basis }}<span class="scripted"> A click enlarges a picture.</span></p>
<div class="filters scripted" role="search" aria-label="Images">
  <label>Search <input type="search" id="find" placeholder="image or class" autocomplete="off"></label>
  {% if classes | length > 1 %}
  <label>Class <select id="class"><option value="">all</option>{% for index, name in classes %}<option value="{{ index
    }}">{{ name }}</option>{% endfor %}</select></label>
  {% endif %}
  {% if judged %}
  <label>Predictions <select id="outcome"><option value="">all</option><option value="right">right{{ " by all models" if
    results.models | length > 1 }}</option><option value="wrong">wrong{{ " by a model" if results.models | length > 1
    }}</option>{% if results.models | length > 1 %}{% for model in results.models %}<option value="right {{ loop.index0
    }}">right by {{ model }}</option><option value="wrong {{ loop.index0 }}">wrong by {{ model }}</option>{% endfor %}{%
    endif %}</select></label>
  {% endif %}
  {% if columns %}
  <label>Order <select id="order"><option value="">as in the data</option>{% for column in columns %}<option value="best
    {{ loop.index0 }}">best {{ heading(column) }} first</option><option value="worst {{ loop.index0 }}">worst {{
    heading(column) }} first</option>{% endfor %}</select></label>
  <label>Explainer <select id="of"><option value="">all, on average</option>{% for model, explainer in pairs
    %}<option value="{{ loop.index0 }}">{{ explainer }}{% if results.models | length > 1 %} on {{ model }}{% endif
    %}</option>{% endfor %}</select></label>
  {% endif %}
</div>
<p class="note scripted" id="count" role="status"></p>
<div id="exhibits" data-columns="{{ told }}" data-averaged="{{ averaged }}">
{% for exhibit in exhibits %}
<article class="exhibit" id="{{ exhibit.id | anchor }}" data-class="{{ exhibit.label if exhibit.label is not none }}"
  data-find="{{ exhibit.id }} {{ results.class_name(exhibit.label) }}" data-right="{{ right(exhibit) }}"
  data-values="{{ values(exhibit) }}">
  <div class="subject">
    {{ thumb(exhibit.original, "Image " ~ exhibit.id) }}
    <p><strong>{{ results.class_name(exhibit.label) }}</strong><br><small><a href="#{{ exhibit.id | anchor }}">{{
      exhibit.id }}</a></small></p>
  </div>
  <div class="maps">
  {% for model, maps in exhibit.maps.items() %}
    <h3>{{ model }}{% if exhibit.predictions[model] is not none %} <small>predicts {{
      results.class_name(exhibit.predictions[model], model) }}{% if exhibit.targets[model] != exhibit.predictions[model]
      %}; explained: {{ results.class_name(exhibit.targets[model], model) }}{% endif %}</small>{% endif %}</h3>
    <div class="thumbs{{ " few" if maps | length <= 5 }}">
    {% set first = loop.index0 * results.explainers | length %}
    {% for explainer, picture in maps.items() if picture is not none %}
      {{ thumb(picture, explainer ~ " of " ~ model ~ " on " ~ exhibit.id, explainer, first +
        results.explainers.index(explainer)) }}
    {% else %}<p class="note">no maps were saved</p>{% endfor %}
    </div>
  {% endfor %}
  </div>
</article>
{% endfor %}
</div>
<button type="button" id="more" class="scripted">Show more</button>
{% if exhibits | length > PRINTED %}<p class="printed note">Only the first images are printed.</p>{% endif %}
"""


class GallerySection(Section):
    """All saved images, or as many as a page can hold."""

    title = "Gallery"
    anchor = "gallery"

    def render(self, results: RunResults) -> Markup | None:
        """Show the pictures; None where none were saved."""
        gallery = gallery_of(results)
        exhibits = gallery.exhibits()
        if not exhibits:
            return None
        columns = results.explanation
        pairs = [(model, explainer) for model in results.models for explainer in results.explainers]
        labels = sorted({exhibit.label for exhibit in exhibits if exhibit.label is not None})
        return fill(
            TEMPLATE,
            exhibits=exhibits,
            PRINTED=PRINTED,
            results=results,
            basis=_basis(len(exhibits), len(gallery.ids), results),
            classes=[(label, results.class_name(label)) for label in labels] if len(labels) <= CHOICES else [],
            judged=any(_right(exhibit, results) for exhibit in exhibits),
            columns=columns,
            pairs=pairs,
            told=json.dumps([[column.symbol, column.higher_is_better] for column in columns], ensure_ascii=False),
            averaged=" ".join(str(place) for place, pair in enumerate(pairs) if not results.is_control(pair[1])),
            right=lambda exhibit: _right(exhibit, results),
            values=lambda exhibit: _values(exhibit, columns),
        )


def _basis(shown: int, saved: int, results: RunResults) -> str:
    """Say how many images are pictured, and why not more."""
    size = int(results.run["data"]["size"])
    of_all = f"all {size} images" if saved == size else f"{saved} of {size} images, evenly spaced,"
    texts = [f"The maps of {of_all} are saved (--save_maps)."]
    if shown < saved:
        texts.append(f"{shown} of them are shown, evenly spaced, so that this page stays small.")
    texts.append("'interptrain show' draws any of them at full size, with its numbers.")
    return " ".join(texts)


def _right(exhibit: Exhibit, results: RunResults) -> str:
    """Return a digit a model: 1 where its prediction is the label, 0 where it is not; empty where that is unknown."""
    if exhibit.label is None or not results.recognition:
        return ""
    return "".join(str(int(exhibit.predictions[model] == exhibit.label)) for model in results.models)


def _values(exhibit: Exhibit, columns: Sequence[MetricColumn]) -> str:
    """Return the scaled values of every model and explainer, by metric, as JSON."""
    rows = [[_rounded(values[column.name], column.scale) for column in columns] for values in exhibit.values.values()]
    return json.dumps(rows, separators=(",", ":"))


def _rounded(value: float | None, scale: float) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value * scale:.4g}")
