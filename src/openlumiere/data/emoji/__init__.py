"""The emoji data set: shards of animated emoji, scenes of them, drawing."""
