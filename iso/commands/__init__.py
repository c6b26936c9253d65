"""The builder's commands, one to a module, in a function of the module's name."""
