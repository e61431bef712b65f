"""Pictures of the docs, drawn as SVG."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from zoo.evaluation import compare

COLOURS = {"phase": "#c07a10", "phase, 1 step": "#8a5fb0", "topk": "#2f8f5b"}
PLOT = (70, 20, 640, 320)  # left, top, width, height


def scores_against_bytes(rows: Sequence[Mapping[str, Any]], dense_score: float) -> str:
    """Spearman against bytes of wires that were trained alike, as SVG.

    Args:
      rows: of results/minilm.json.
      dense_score: of the model that is not cut, drawn as a line.
    """
    left, top, width, height = PLOT
    sizes = [row["bytes_per_token_and_hop"] for row in rows]
    low, high = math.log2(min(sizes)) - 0.4, math.log2(max(sizes)) + 0.9
    bottom, ceiling = 0.81, 0.875
    across = lambda sent: left + width * (math.log2(sent) - low) / (high - low)
    down = lambda score: top + height * (ceiling - score) / (ceiling - bottom)
    dense = down(dense_score)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 20} '
        f'{top + height + 60}" font-family="Helvetica, Arial, sans-serif" font-size="13" '
        'role="img" aria-label="Spearman against bytes a token and hop">',
        f'<rect width="{left + width + 20}" height="{top + height + 60}" fill="#ffffff"/>',
    ]
    for score in (0.81, 0.82, 0.83, 0.84, 0.85, 0.86, 0.87):
        y = down(score)
        parts.append(f'<path d="M{left} {y:.1f} H{left + width}" stroke="#e3e3e3"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{score:.2f}</text>')
    for sent in (6, 12, 24, 48, 98, 194, 386, 768, 1536):
        at = f'x="{across(sent):.1f}" y="{top + height + 22}"'
        parts.append(f'<text {at} text-anchor="middle">{sent}</text>')
    parts.append(
        f'<path d="M{left} {dense:.1f} H{left + width}" stroke="#666666" stroke-dasharray="5 4"/>'
        f'<text x="{left + 6}" y="{dense - 6:.1f}" fill="#666666">dense model, not cut</text>'
        f'<text x="{left + width / 2:.0f}" y="{top + height + 48}" text-anchor="middle">'
        "bytes a token on each hop</text>"
        f'<text x="{left}" y="{top - 6}">Spearman, STS-B dev</text>'
    )
    spikes = sorted((across(row["bytes_per_token_and_hop"]), down(row["spearman"]))
                    for row in rows if compare.WHAT["boundary"](row) == "phase")  # fmt: skip
    path = " L".join(f"{x:.1f} {y:.1f}" for x, y in spikes)
    parts.append(f'<path d="M{path}" fill="none" stroke="#c07a10" stroke-width="2"/>')
    for row in rows:
        name = compare.WHAT["boundary"](row)
        x, y = across(row["bytes_per_token_and_hop"]), down(row["spearman"])
        level = y + 14 if abs(y + 10 - dense) > 8 else y - 7  # off the dense model's line
        colour = COLOURS.get(name, "#3b66b0")
        label = {"phase": "spikes", "phase, 1 step": "spikes, 1 step", "topk": "top-k"}
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'
            f'<text x="{x + 9:.1f}" y="{level:.1f}" fill="{colour}">{label.get(name, name)}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])
