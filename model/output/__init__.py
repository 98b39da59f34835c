"""Results as files that a person goes on with: with the sound, rate, colours and length of their source."""
