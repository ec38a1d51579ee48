"""Users' files, decoded and written anew by processes of limited memory and time."""
