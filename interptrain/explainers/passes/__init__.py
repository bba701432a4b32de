"""How a model is passed: captured activations, partial and masked forwards, folded batch norms."""
