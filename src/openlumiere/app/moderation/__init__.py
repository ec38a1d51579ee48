"""What the operator does not allow to be asked for, refused before anything is computed."""
