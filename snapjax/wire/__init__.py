"""How symbols become bytes: bit planes, events (AER), dense formats, gradients, bit fields."""
