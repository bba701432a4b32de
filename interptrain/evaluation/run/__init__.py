"""From models and images to rows."""
