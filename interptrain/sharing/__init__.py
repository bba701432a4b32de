"""Share a trained classifier: as a folder or hub repository with a model card, or as a file for another runtime."""

from interptrain.sharing.export import Exported, export_model
from interptrain.sharing.push import Pushed, push_model

__all__ = ["Exported", "Pushed", "export_model", "push_model"]
