"""A growing B-tree. Invariants: keys in order, every node at least half full, all leaves at one depth.

Runs on the machine, and beside it in CPython, which says what each step must print.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS_MAX = 15
INSERTS_PER_STEP = 25


class Node:
    """Keys in order; children are one more than keys, or none in a leaf."""

    def __init__(self, keys: "list[int]", children: "list[Node]") -> None:
        self.keys = keys
        self.children = children


def split(parent: "Node", index: int) -> None:
    """Make two nodes of a full child."""
    child = parent.children[index]
    middle = KEYS_MAX // 2
    right = Node(child.keys[middle + 1 :], child.children[middle + 1 :])
    parent.keys.insert(index, child.keys[middle])
    parent.children.insert(index + 1, right)
    child.keys = child.keys[:middle]
    child.children = child.children[: middle + 1]


def insert(root: "Node", key: int) -> "Node":
    """Add a key, splitting full nodes on the way down; returns the root."""
    if len(root.keys) == KEYS_MAX:
        root = Node([], [root])
        split(root, 0)
    node = root
    while True:
        index = sum(1 for other in node.keys if other < key)
        if index < len(node.keys) and node.keys[index] == key:
            return root
        if not node.children:
            node.keys.insert(index, key)
            return root
        if len(node.children[index].keys) == KEYS_MAX:
            split(node, index)
            if node.keys[index] == key:
                return root
            index += node.keys[index] < key
        node = node.children[index]


def walk(node: "Node", depth: int, depths: "set[int]") -> "Iterator[int]":
    """All keys in order; notes the depth of each leaf."""
    assert depth == 0 or len(node.keys) >= KEYS_MAX // 2, "a node is less than half full"
    if not node.children:
        depths.add(depth)
        yield from node.keys
        return
    assert len(node.children) == len(node.keys) + 1, "a node has lost a child"
    for key, child in zip(node.keys, node.children):  # noqa: B905 (MicroPython's zip has no strict)
        yield from walk(child, depth + 1, depths)
        yield key
    yield from walk(node.children[-1], depth + 1, depths)


def steps() -> "Iterator[int]":
    """One digest of the whole tree for each step."""
    root = Node([], [])
    state = 1
    while True:
        for _ in range(INSERTS_PER_STEP):
            state = state * 1103515245 + 12345 & 0x7FFFFFFF
            root = insert(root, state >> 7)
        previous, digest = -1, 0
        depths: set[int] = set()
        for key in walk(root, 0, depths):
            assert key > previous, "keys are not in order"
            previous = key
            digest = (digest * 31 + key) % 1000003
        assert len(depths) == 1, "leaves at different depths"
        yield digest
