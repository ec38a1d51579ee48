"""Features of clips that Fréchet distances and Inception Scores are computed of: networks, caches, sets of clips."""
