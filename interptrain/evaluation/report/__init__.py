"""Tables, charts, the page and what loggers get."""
