"""The ring as text: a bar a node, from the object of `henge status -o json`."""

from __future__ import annotations

from typing import Any

WIDTH = 24


def bar(share: float, filled: str) -> str:
    cells = min(WIDTH, max(0, round(share * WIDTH)))
    return filled * cells + "·" * (WIDTH - cells)


def ring(status: dict[str, Any]) -> str:
    """Each node's part of the slices: as primary █, and all copies that it holds ▒. A full bar is every slice."""
    slices = status["ring"]["slices"]
    total = max(1, slices["total"])
    lines = [
        f"  ring {status['ring']['hash']}   {slices['total']:,} slices: settled {slices['settled']:,}, "
        f"moving {slices['moving']:,}, short of copies {slices['short']:,}, unavailable {slices['unavailable']:,}"
    ]
    for member in sorted(status["members"], key=lambda member: member["name"]):
        state = member["lifecycle"] if member["liveness"] == "alive" else member["liveness"]
        primaries, copies = member["primaries"] / total, member["copies"] / total
        lines.append(
            f"  {member['name']:<4} {state:<9} primary {bar(primaries, '█')} {primaries:6.1%}"
            f"   copies {bar(copies, '▒')} {copies:6.1%}   {member['items']:>8,} items {member['bytes'] / 1e6:7.1f} MB"
        )
    return "\n".join(lines)
