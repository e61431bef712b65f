"""The training of a model: the loop, the step, placement, processes, metrics, distillation.

May import pretrained, checkpoint, models, data, config, utils and snapjax."""
