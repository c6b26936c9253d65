"""VMs that move between two nodes with a libvirtd, an agent and a proxy each."""
