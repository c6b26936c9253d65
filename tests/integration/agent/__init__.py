"""The host agent on a real libvirtd, over its real socket."""
