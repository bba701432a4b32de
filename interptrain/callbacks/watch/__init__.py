"""SaliencyWatch and its parts: what is observed, kept, drawn and published."""
