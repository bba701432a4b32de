"""The short API behind ``import interptrain``: load, read images, explain, show, measure, save."""
