"""The same requests as tools of an assistant (Model Context Protocol)."""
