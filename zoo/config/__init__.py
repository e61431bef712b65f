"""The dataclasses of a run and of a saved model, presets, values from the command line.

The lowest layer but `utils`: what loads a model needs it. Imports snapjax alone."""
