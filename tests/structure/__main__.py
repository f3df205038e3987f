"""`python -m tests.structure [FOLDER]`: the counts of `tests.structure.measure`, of this tree or of another."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from tests.structure.measure import House


def main() -> None:
    """Print the counts, and what stands behind each."""
    house = House(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2])
    print(f"lines in proxy/: {sum(one.lines for one in house.modules.values())} in {len(house.modules)} files")
    print("files a room:")
    for room, number in sorted(house.files_a_room.items()):
        print(f"  {number:3} {room}")
    print(f"circles: {len(house.circles)}")
    for circle in house.circles:
        print("  " + " ".join(circle))
    print(f"imports of a higher room: {len(house.climbs)}")
    for climb in house.climbs:
        print(f"  {climb}")
    print(f"foreign writes: {len(house.foreign_writes)}")
    for module, number in Counter(one.module for one in house.foreign_writes).most_common():
        print(f"  {number:3} {module}: {', '.join(one.what for one in house.foreign_writes if one.module == module)}")
    classes = [one for module in house.modules.values() for one in module.classes.values()]
    print("classes of most fields:")
    for one in sorted(classes, key=lambda one: -len(house.fields(one)))[:8]:
        print(f"  {len(house.fields(one)):3} {one.module}.{one.name}")
    print("deepest inheritance:")
    for one in sorted(classes, key=lambda one: -house.depth(one))[:5]:
        print(f"  {house.depth(one):3} {one.module}.{one.name}")


if __name__ == "__main__":
    main()
