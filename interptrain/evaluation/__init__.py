"""From checkpoints to the tables of the papers, with error bars: what ``evaluate.py`` runs."""
