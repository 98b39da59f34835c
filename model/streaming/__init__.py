"""Videos edited window by window: where windows lie, how they meet, and how a stopped edit goes on."""
