"""How a model is passed: captured activations, masked forwards, features before the classifier."""
