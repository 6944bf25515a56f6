"""One process and its folder: options, log, errors and exit status, devices, signals, progress."""
