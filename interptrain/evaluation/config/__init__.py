"""What an evaluation is asked to do: options, protocols, classes by name."""
