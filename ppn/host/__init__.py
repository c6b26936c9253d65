"""Virtual machines on one node: the only code that talks to libvirt."""
