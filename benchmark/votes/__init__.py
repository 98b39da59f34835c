"""What a study's votes say: preferences, strengths, agreement, who is left out, and the report of it all."""
