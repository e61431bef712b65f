"""How symbols become bytes: bit planes, events, dense formats, gradients, bit fields."""
