"""Reads a Hugging Face `config.json` strictly: every field is used, checked, idle, or refused.

A field that is skipped in silence is a model that computes something else than its file says.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Of every model's config. They name, describe or train a model, say how a decoder generates, or in
# which dtype or how fast it runs; an encoder's function does not depend on them.
WITHOUT_EFFECT = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _name_or_path _num_labels architectures
    attention_probs_dropout_prob attn_implementation bad_words_ids begin_suppress_tokens
    bos_token_id chunk_size_feed_forward decoder_start_token_id diversity_penalty do_sample
    dtype early_stopping encoder_no_repeat_ngram_size eos_token_id eos_token_ids
    exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id
    gradient_checkpointing hidden_dropout_prob id2label initializer_range label2id
    length_penalty max_length min_length model_type no_repeat_ngram_size num_beam_groups
    num_beams num_labels num_return_sequences output_attentions output_hidden_states
    output_past output_scores pad_token_id prefix problem_type remove_invalid_values
    repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens
    task_specific_params
    temperature tf_legacy_loss tokenizer_class top_k top_p torch_dtype torchscript
    transformers_version typical_p use_bfloat16 use_cache
    """.split()  # noqa: SIM905 (a list of fifty quoted names reads worse)
)
# Of every model's config, with the only values that our models compute.
FIXED = {
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "pruned_heads": ({}, None),
    "tie_encoder_decoder": (False,),
    "hidden_act": ("gelu",),  # the exact one; "gelu_new" and "gelu_fast" are approximations
}


@dataclass(frozen=True)
class Fields:
    """What a family reads of its `config.json`.

    Attributes:
      sizes: their name -> (our field, the value that transformers takes where it is left out).
      fixed: their name -> the values that our model computes; besides `FIXED`.
      others: names that the family reads by itself or that have no effect on it.
    """

    sizes: Mapping[str, tuple[str, Any]]
    fixed: Mapping[str, tuple] = field(default_factory=dict)
    others: frozenset[str] = frozenset()

    def read(self, config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Values of our fields, and a line for each field that is not handled."""
        values, problems = {}, []
        fixed = {**FIXED, **self.fixed}
        for name, (ours, default) in self.sizes.items():
            value = config.get(name, default)
            kinds = (int, float) if isinstance(default, float) else int
            if not isinstance(value, kinds) or isinstance(value, bool):
                problems.append(f"config field {name}={value!r} must be a number")
            elif isinstance(default, float) and not 0 <= value < math.inf:
                problems.append(f"config field {name}={value!r} must be at least 0, and finite")
            values[ours] = value
        for name, value in config.items():
            if name in fixed:
                if value not in fixed[name]:
                    accepted = " or ".join(map(repr, fixed[name]))
                    problems.append(
                        f"config field {name}={value!r} is not supported, only {accepted}"
                    )
            elif name not in self.sizes and name not in self.others | WITHOUT_EFFECT:
                problems.append(f"config field {name}={value!r} is not handled")
        if labels(config) is None and config.get("id2label"):
            problems.append(
                f"config field id2label={config['id2label']!r} must map 0, 1, 2, ... to names"
            )
        return values, problems

    def write(self, config: Any) -> dict[str, Any]:
        """The fields of a Hugging Face config with the values of one of ours."""
        return {name: getattr(config, ours) for name, (ours, _) in self.sizes.items()}


def labels(config: Mapping[str, Any]) -> list[str] | None:
    """Names of the classes in the order of their numbers; None where the config gives none, or
    leaves numbers out."""
    names = config.get("id2label")
    if not isinstance(names, dict) or not names:
        return None
    if names.keys() != {str(index) for index in range(len(names))}:
        return None
    found = [names[str(index)] for index in range(len(names))]
    return found if all(isinstance(name, str) for name in found) else None


def classes(config: Mapping[str, Any]) -> int:
    """Number of labels of a classifier's config; transformers takes 2 where nothing is said."""
    names = labels(config)
    return config.get("num_labels", 2) if names is None else len(names)
