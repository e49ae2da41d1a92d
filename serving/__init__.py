"""Many machines: servers over the runtime's public face. Importing this loads nothing heavy."""
