"""The graph as rows: a trunk from the loss to the first layer, and what branches off from it. Text and SVG share it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.trace.facts import Node


@dataclass(frozen=True)
class Row:
    """Operations that follow each other, `depth` branches away from the trunk."""

    depth: int
    chain: list[Node]
    later: list[Node]  # what the last one hands on to as well, further down, where other ways lead there too


def rows(graph: Sequence[Node]) -> list[Row]:
    """Every operation once, below all that hand on to it; the root is number 0.

    After an operation its branches, the shortest first, then what carries on. A branch that does nothing but hand on to
    a parameter stands in one row with it.
    """
    reach = _reach(graph)
    waits_for = Counter(n for node in graph for n in set(node.next))
    out: list[Row] = []
    todo = [(0, 0)]  # (depth, number), last first
    while todo:
        depth, number = todo.pop()
        chain = [graph[number]]
        while depth and _ends_soon(graph, number) and waits_for[(chain[-1].next or [0])[0]] == 1:
            chain.append(graph[chain[-1].next[0]])
        following = sorted(set(chain[-1].next), key=lambda n: (reach[n], n))
        waits_for.subtract(following)
        ready = [n for n in following if waits_for[n] == 0]
        out.append(Row(depth, chain, [graph[n] for n in following if n not in ready]))
        carries_on = len(following) == 1 or (ready and not _ends_soon(graph, ready[-1]))
        branches = ready[:-1] if carries_on else ready
        todo += [(depth, n) for n in ready[len(branches) :]]
        todo += [(depth + 1, n) for n in reversed(branches)]
    return out


def _ends_soon(graph: Sequence[Node], number: int) -> bool:
    """Whether an operation does nothing but hand on to one parameter."""
    while len(graph[number].next) == 1 and not graph[number].what:
        (number,) = graph[number].next
    return not graph[number].next


def _reach(graph: Sequence[Node]) -> list[int]:
    """How many operations the longest way from each one to a parameter has."""
    longest = [0] * len(graph)
    for _ in graph:  # at most as many rounds as the longest way has operations; one or two in the order of `graph`
        before = list(longest)
        for node in reversed(graph):
            longest[node.number] = 1 + max((longest[n] for n in node.next), default=0)
        if longest == before:
            break
    return longest
