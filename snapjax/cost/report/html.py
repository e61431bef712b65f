"""An estimate as one page with charts: no script, no font, no picture from elsewhere."""

from collections.abc import Iterable, Sequence
from html import escape as escape_markup

from snapjax.cost.price.estimate import Estimate
from snapjax.cost.price.traffic import ENCODINGS
from snapjax.cost.report.text import joules, latency_rows, plain, seconds, si, table

# Colours that stay apart for colour-blind readers (Okabe and Ito 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 62em; padding: 0 1em;
  color: #222; background: #fff }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em }
svg { width: 100%; height: auto } text { font: 13px system-ui, sans-serif; fill: #222 }
pre { overflow-x: auto; background: #f6f6f6; padding: 1em; font-size: 12px; line-height: 1.35 }
"""
_LABEL, _BAR, _ROW = 250, 520, 26  # pixels of the label's column, of the longest bar, of a row


def html(estimate: Estimate, title: str = "Cost") -> str:
    """An estimate as one HTML page with charts, which loads nothing from elsewhere.

    Args:
      estimate: from `snapjax.cost.estimate`.
      title: of the page.
    """
    profile, devices = estimate.profile, estimate.counts.devices
    parts = [(part, amount) for part, amount in estimate.energy_parts.items() if amount.value]
    top = max((amount.high for _, amount in parts), default=0.0)
    energy = bars(
        [
            (part, 0.0, amount.value, joules(amount.value), (amount.low, amount.high))
            for part, amount in parts
        ],
        top,
    )
    sections = [
        ("Energy, with the range of the profile's constants", energy),
        ("Latency of one step, part after part", waterfall(estimate)),
        ("Bytes on each link, all devices together", _links(estimate)),
    ]
    if estimate.traffic:
        sections.append(("The same spikes in other encodings", _encodings(estimate)))
    body = "\n".join(f"<h2>{escape(name)}</h2>\n{chart}" for name, chart in sections if chart)
    notes = "\n".join(f"<li>{escape(note)}</li>" for note in estimate.notes)
    lead = (
        f"{joules(estimate.energy.value)} and {seconds(estimate.latency.value)} a step on "
        f"{devices} x {profile.name} ({profile.description})."
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p>{escape(lead)}</p>
{body}
<h2>In figures</h2>
<pre>{escape_markup(table(estimate))}</pre>
<h2>Notes</h2>
<ul>
{notes}
</ul>
</body>
</html>
"""


Bar = tuple[str, float, float, str, tuple[float, float] | None]
"""Label, where the bar starts and ends, the text behind it, and the ends of its range."""


def bars(rows: Sequence[Bar], top: float) -> str:
    """A chart of horizontal bars as SVG; `top` is the value of the longest.

    Example:
      >>> bars([("links", 0.0, 2.0, "2 B", None)], 4.0).count("<rect")
      1
    """
    if not rows:
        return ""
    scale = _BAR / top if top > 0 else 0.0
    lines = [
        f'<svg viewBox="0 0 {_LABEL + _BAR + 160} {_ROW * len(rows) + 8}" role="img" '
        f'aria-label="{escape(", ".join(f"{row[0]}: {row[3]}" for row in rows))}">'
    ]
    for index, (label, start, end, text, ends) in enumerate(rows):
        y, colour = _ROW * index + 4, COLOURS[index % len(COLOURS)]
        left, right = sorted((start, end))
        x, width = _LABEL + scale * left, max(scale * (right - left), 1.0)
        far = x + width
        lines.append(
            f'<text x="{_LABEL - 8}" y="{y + 16}" text-anchor="end">{escape(_short(label))}'
            f"<title>{escape(label)}</title></text>"
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_ROW - 6}" fill="{colour}"/>'
        )
        if ends is not None:
            low, high = (_LABEL + scale * value for value in ends)
            middle, far = y + _ROW / 2 - 3, max(far, high)
            lines.append(
                f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 5}v10'
                f'M{high:.1f} {middle - 5}v10" stroke="#222" fill="none"/>'
            )
        lines.append(f'<text x="{far + 6:.1f}" y="{y + 16}">{escape(text)}</text>')
    return "\n".join([*lines, "</svg>"])


def waterfall(estimate: Estimate) -> str:
    """The parts of a step's latency, each starting where the one before ended, and their sum."""
    rows: list[Bar] = []
    reached = top = 0.0
    for name, value in latency_rows(estimate):
        rows.append((name, reached, reached + value, seconds(value), None))
        reached += value
        top = max(top, reached)
    rows.append(("one step", 0.0, reached, seconds(reached), None))
    return bars(rows, top)


def _links(estimate: Estimate) -> str:
    rows: list[Bar] = []
    for link in estimate.links:
        moved = link.transfer
        name = f"{moved.collective} {', '.join(moved.axes)}: {moved.symbol} {moved.path}".strip()
        rows.append((name, 0.0, link.bytes, si(link.bytes, "B"), None))
    return bars(rows, _top(row[2] for row in rows))


def _encodings(estimate: Estimate) -> str:
    rows: list[Bar] = []
    for name in ENCODINGS:
        sent = sum(row.bytes[name] for row in estimate.traffic)
        rows.append((name.replace("_", " "), 0.0, sent, si(sent, "B"), None))
    return bars(rows, _top(row[2] for row in rows))


def _top(values: Iterable[float]) -> float:
    return max(values, default=0.0)


def escape(text: str) -> str:
    """Text of a page on one line: names come from the user's program."""
    return escape_markup(plain(text))


def _short(text: str, most: int = 34) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
