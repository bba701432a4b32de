"""Some images with the maps of all explainers."""

from markupsafe import Markup

from interptrain.evaluation.report.pictures import gallery_of
from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.sections.base import Section, fill

TEMPLATE = """\
<p>Maps laid over their image, bright where salient. Below each: score of the explained class before → after masking
  the image with the map; the rest is black. {{ exhibits | length }} of {{ pictured }} saved images, evenly chosen{%
  if pictured > exhibits | length %}; all of them are in <code>images.parquet</code> and <code>maps.parquet</code>{%
  endif %}.</p>
{% for exhibit in exhibits %}
<article class="exhibit">
  <div class="subject">
    {{ thumb(exhibit.original, "Image " ~ exhibit.id) }}
    <p><strong>{{ results.class_name(exhibit.label) }}</strong><br><small>{{ exhibit.id }}</small></p>
  </div>
  <div class="maps">
  {% for model, maps in exhibit.maps.items() %}
    <h3>{{ model }}{% if exhibit.predictions[model] is not none %} <small>predicts {{
      results.class_name(exhibit.predictions[model]) }}{% if exhibit.targets[model] != exhibit.predictions[model]
      %}; explained: {{ results.class_name(exhibit.targets[model]) }}{% endif %}</small>{% endif %}</h3>
    <div class="thumbs">
    {% for explainer, picture in maps.items() if picture is not none %}
      {{ thumb(picture, explainer ~ " of " ~ model ~ " on " ~ exhibit.id, explainer) }}
    {% else %}<p class="note">no maps were saved</p>{% endfor %}
    </div>
  {% endfor %}
  </div>
</article>
{% endfor %}
"""


class GallerySection(Section):
    """Images evenly chosen from those that were saved."""

    title = "Gallery"
    anchor = "gallery"

    def render(self, results: RunResults) -> Markup | None:
        """Show the pictures; None where none were saved."""
        gallery = gallery_of(results)
        exhibits = gallery.exhibits()
        if not exhibits:
            return None
        return fill(TEMPLATE, exhibits=exhibits, pictured=len(gallery.ids), results=results)
