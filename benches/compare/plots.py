"""Bar charts as SVG, by hand: a panel a row of the table, the proxies below each other, cutover in color."""

import html

WIDTH, COLUMNS, GAP = 360, 3, 24
LINE, HEAD, LABEL, VALUE = 20, 44, 70, 70
COLORS = {"cutover": "#0b7285", "relay": "#ced4da"}
OTHER = "#868e96"


def sheet(title, panels):
    """`panels`: (title, unit, [(name, value, low, high)]); low and high may be None."""
    panels = [panel for panel in panels if panel[2]]
    heights = [HEAD + LINE * len(bars) for _, _, bars in panels]
    rows = [range(first, min(first + COLUMNS, len(panels))) for first in range(0, len(panels), COLUMNS)]
    parts, top = [], 50
    for row in rows:
        for column, index in enumerate(row):
            parts.append(panel_svg(GAP + column * (WIDTH + GAP), top, *panels[index]))
        top += max(heights[index] for index in row) + GAP
    width = GAP + COLUMNS * (WIDTH + GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top}" viewBox="0 0 {width} {top}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="{GAP}" y="30" font-size="18" fill="#212529">{html.escape(title)}</text>{"".join(parts)}</svg>\n'
    )


def panel_svg(left, top, title, unit, bars):
    most = max(high if high is not None else value for _, value, _, high in bars) or 1
    scale = (WIDTH - LABEL - VALUE) / most
    parts = [f'<text x="{left}" y="{top + 12}" font-weight="bold" fill="#212529">{html.escape(title)}</text>']
    parts.append(f'<text x="{left}" y="{top + 28}" fill="#868e96">{html.escape(unit)}</text>')
    for number, (name, value, low, high) in enumerate(bars):
        y = top + HEAD + number * LINE
        start = left + LABEL
        parts.append(f'<text x="{start - 6}" y="{y + 4}" text-anchor="end" fill="#212529">{html.escape(name)}</text>')
        color = COLORS.get(name, OTHER)
        parts.append(f'<rect x="{start}" y="{y - 7}" width="{value * scale:.1f}" height="14" fill="{color}"/>')
        end = value
        if low is not None and high is not None:
            parts.append(f'<path d="M{start + low * scale:.1f} {y}H{start + high * scale:.1f}" stroke="#212529"/>')
            end = high
        parts.append(f'<text x="{start + end * scale + 5:.1f}" y="{y + 4}" fill="#495057">{shown(value)}</text>')
    return "".join(parts)


def shown(value):
    """Three digits say enough."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
