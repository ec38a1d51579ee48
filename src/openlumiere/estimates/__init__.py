"""What models take of memory, time and money, estimated before anything is loaded: `lumiere plan`."""
