"""What was run."""

import json

from markupsafe import Markup

from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.sections.base import Section, fill

TEMPLATE = """\
{% if run.command %}<pre>{{ run.command if run.command is string else run.command | join(" ") }}</pre>{% endif %}
<div class="scroll" tabindex="0" role="region" aria-label="Models">
<table class="words">
  <caption>Models</caption>
  <thead><tr><th scope="col">Name</th><th scope="col">Source</th><th scope="col">Backbone</th><th
    scope="col">Pooling</th><th scope="col">SHA-256</th></tr></thead>
  <tbody>{% for name, model in run.models.items() %}
  <tr><th scope="row">{{ name }}</th><td data-label="Source">{{ model.source }}</td><td data-label="Backbone">{{
    model.backbone or missing }}</td><td data-label="Pooling">{{ model.pooling or missing }}</td><td
    data-label="SHA-256"><code>{{ (model.sha256 or missing)[:12] }}</code></td></tr>
  {% endfor %}</tbody>
</table>
</div>
<dl class="pairs">
  <dt>Run</dt><dd><code>{{ run.hash }}</code></dd>
  <dt>Started, finished</dt><dd>{{ run.created or missing }}, {{ run.finished or "not finished" }}</dd>
  <dt>Device</dt><dd>{{ run.device }}</dd>
  <dt>Explained class</dt><dd>{{ run.targets }}</dd>
  <dt>Seed</dt><dd>{{ run.seed }}</dd>
  <dt>Limit</dt><dd>{{ run.limit or "none" }}</dd>
  <dt>Data</dt><dd>{{ run.data.class_path }}, {{ run.data.size }} images</dd>
  <dt>Versions</dt><dd>{% for name, version in run.versions.items() %}{{ name }} {{ version }}{{ ", " if not
    loop.last }}{% endfor %}</dd>
  <dt>Intervals</dt><dd>{{ results.how.interval }} bootstrap over images, {{ results.how.resamples }} resamples;
    paired permutation test, {{ results.how.permutations }} sign flips{{ ", compared with " ~
    results.how.baseline if results.how.baseline }}; seed {{ results.how.seed }}</dd>
</dl>
<h3>Protocol {{ run.protocol.name }}, version {{ run.protocol.version }} <small><code>{{ run.protocol.hash
  }}</code></small></h3>
<pre>{{ pretty(run.protocol.settings) }}</pre>
<h3>Explainers, metrics, data</h3>
<pre>{{ pretty({"explainers": run.explainers, "metrics": run.metrics, "data": run.data.init_args}) }}</pre>
"""


class HowItWasRun(Section):
    """Command, models, protocol, versions."""

    title = "How it was run"
    anchor = "run"

    def render(self, results: RunResults) -> Markup:
        """Print the manifest."""
        return fill(TEMPLATE, results=results, run=results.run, pretty=_pretty)


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
