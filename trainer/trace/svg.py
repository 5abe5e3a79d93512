"""The graph as an SVG picture: the trunk on the left from the loss down, parameters branching off to the right."""

from __future__ import annotations

from html import escape

from trainer.text import cut
from trainer.trace import tree
from trainer.trace.facts import Node, Trace

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN, TOP = 250, 40, 34, 18, 24, 78
LETTER = 6.9  # pixels of a letter at 12 px
KINDS = {  # kind -> fill, outline
    "loss": ("#fef3c7", "#d97706"),
    "parameter": ("#dcfce7", "#16a34a"),
    "layer": ("#dbeafe", "#2563eb"),
    "operation": ("#f3f4f6", "#9ca3af"),
    "wrong": ("#fee2e2", "#dc2626"),
}


def draw(trace: Trace) -> str:
    """An SVG document of the trace's graph, each box with its operation, what it is, and its gradient's norm."""
    norms = {gradient.name: gradient.norm for gradient in trace.gradients}
    wrong = {gradient.name for gradient in trace.gradients if not gradient.check.ok}
    rows = tree.rows(trace.graph)
    places: dict[int, tuple[int, int]] = {}
    y, right = TOP, 0
    for row in rows:
        for i, node in enumerate(row.chain):
            x = MARGIN + (row.depth + i) * (WIDTH + GAP_X)
            places[node.number] = (x, y)
            right = max(right, x + WIDTH)
        y += HEIGHT + GAP_Y
    boxes, lines = [], []
    for node in trace.graph:
        name = (node.what or "").removeprefix("output of ")
        boxes.append(_box(node, *places[node.number], norms.get(name), name in wrong))
        lines += [_line(places[node.number], places[n], set(places.values())) for n in dict.fromkeys(node.next)]
    title = f"Backward through {trace.network}: where the gradient of the loss goes"
    said = (
        f"{trace.loss_name} of {trace.examples} examples of {trace.data}, loss {trace.loss:.6g}; "
        "|g| is the norm of a gradient"
    )
    width, height = max(right + MARGIN, 640), y + MARGIN - GAP_Y
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="ui-sans-serif, system-ui, sans-serif" font-size="12">'
        '<defs><marker id="to" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#6b7280"/></marker></defs>'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
        f'<text x="{MARGIN}" y="32" font-size="16" font-weight="600" fill="#111827">{escape(title)}</text>'
        f'<text x="{MARGIN}" y="54" fill="#6b7280">{escape(said)}</text>'
    )
    return "\n".join([head, *lines, *boxes, "</svg>\n"])


def _box(node: Node, x: int, y: int, norm: float | None, wrong: bool) -> str:
    is_parameter = node.name == "AccumulateGrad"
    kind = "wrong" if wrong else "loss" if node.number == 0 else "parameter" if is_parameter else "layer"
    kind = kind if node.what or node.number == 0 or wrong else "operation"
    fill, outline = KINDS[kind]
    shape = "" if node.shape is None else f" ({', '.join(map(str, node.shape))})"
    what = "loss" if node.number == 0 else f"{node.what or ''}{shape}"
    aside = "" if norm is None else f"|g| {norm:.3g}"
    room = int((WIDTH - 24) / LETTER)
    name = cut(node.name, room - len(aside))
    second = f'<text x="{x + 12}" y="{y + 31}" fill="#4b5563">{escape(cut(what, room))}</text>' if what else ""
    middle = y + 17 if what else y + HEIGHT // 2 + 4
    return (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8" fill="{fill}" stroke="{outline}"/>'
        f'<text x="{x + 12}" y="{middle}" font-weight="600" fill="#111827">{escape(name)}</text>{second}'
        f'<text x="{x + WIDTH - 12}" y="{y + 17}" text-anchor="end" fill="{outline}">{escape(aside)}</text>'
    )


def _line(start: tuple[int, int], end: tuple[int, int], boxes: set[tuple[int, int]]) -> str:
    """From a box down to the next in its column, around those between them, to the right, or around the corner."""
    (x, y), (to_x, to_y) = start, end
    middle, to_middle = y + HEIGHT / 2, to_y + HEIGHT / 2
    if to_x == x and not any(box_x == x and y < box_y < to_y for box_x, box_y in boxes):
        path = f"M{x + 16} {y + HEIGHT}V{to_y - 1}"
    elif to_y == y:
        path = f"M{x + WIDTH} {middle}H{to_x - 1}"
    elif to_x > x:
        path = f"M{x + 40} {y + HEIGHT}V{to_middle - 8}q0 8 8 8H{to_x - 1}"
    else:
        right, turn = to_x + WIDTH, x + WIDTH + GAP_X - 4
        path = f"M{x + WIDTH} {middle}C{turn} {middle} {turn} {to_middle} {right + 1} {to_middle}"
    return f'<path d="{path}" fill="none" stroke="#6b7280" stroke-width="1.2" marker-end="url(#to)"/>'
