"""Captioned clips: the emoji data set, folders of a user's own, WebDataset shards."""
