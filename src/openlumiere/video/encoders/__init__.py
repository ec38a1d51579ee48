"""One function a format: uint8 frames, a rate and a note into a file, or into memory."""
