"""What samples are worth: signals and grades of any samples, labels by people, thresholds from them."""
