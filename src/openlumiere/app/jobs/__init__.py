"""Jobs and their results: what is asked for, who asked, the queue, and what is kept of it. Imports no torch."""
