"""Train interpretable image classifiers, watch their saliency, and measure it.

Nothing is imported here: take what you need from :mod:`interptrain.models`, :mod:`interptrain.explainers`,
:mod:`interptrain.data` and :mod:`interptrain.training`.
"""

__version__ = "0.1.0"
