"""What runs: the services, the host library and the `ppn` command of a private VM pool."""

__version__ = "0.1.0"
