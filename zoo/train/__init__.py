"""Runs: from a config to a trained model in a folder, with metrics, curves and checkpoints.

May import pretrained, checkpoint, models, data, config, utils and snapjax.
"""
