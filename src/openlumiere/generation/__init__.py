"""From a request to a finished clip: requests, what files tell of them, lists of jobs, and `make`."""
