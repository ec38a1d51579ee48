"""Several models on the same prompts: their clips, what can be measured of them, a page, and a study of them."""
