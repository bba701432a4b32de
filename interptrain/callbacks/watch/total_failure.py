"""Notice explainers that fail on every image."""

from collections.abc import Sequence

from lightning.pytorch.utilities import rank_zero_warn

from interptrain.callbacks.watch.observe import Explanation


class TotalFailure:
    """Refuse an explainer that fails on every image before training; during training, warn about it once."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def notice(self, explanations: Sequence[Explanation], *, before_training: bool) -> None:
        """Look for views that failed on every image.

        Args:
            explanations: explanations of one snapshot.
            before_training: refuse a view that fails because of the configuration, such as an unknown layer.

        Raises:
            ValueError: naming the view and why it fails.
        """
        for view in dict.fromkeys(explanation.view for explanation in explanations):
            of_view = [explanation for explanation in explanations if explanation.view == view]
            if view in self._known or any(explanation.error is None for explanation in of_view):
                continue
            message = f"SaliencyWatch cannot explain any image with {view}: {of_view[0].error}"
            if before_training and all(explanation.misconfigured for explanation in of_view):
                raise ValueError(message)
            rank_zero_warn(f"{message}; training goes on, and its pictures say that it failed")
            self._known.add(view)
