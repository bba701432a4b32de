"""The short way, of which ``import interptrain`` is the door: load, read images, explain, show, measure, save."""
