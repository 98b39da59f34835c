"""Means, differences and correlations with their intervals."""
