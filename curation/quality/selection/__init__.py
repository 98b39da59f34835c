"""Which samples are kept: labels by people, thresholds from them, and the filter that applies them."""
