"""The subcommands of `snapjax`, how a command ends, and the demo. May import all of zoo."""
