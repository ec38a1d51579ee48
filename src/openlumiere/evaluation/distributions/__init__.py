"""FVD and Inception Score: how far a set of clips is from another one, and how various it is."""
