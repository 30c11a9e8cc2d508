"""Two trees over topic levels: one finds the filters that match a topic, one the topics that match a filter.

They know levels, wildcards and the ``$`` rule; they must never know what the values are. What always holds: the work of
a match depends on the levels of the topic and on the nodes that it leads through, never on the number of other filters
or topics; nothing recurses, so that depth needs no stack; a branch without a value is removed. A filter can match as
many topics as there are, so that match can be done in portions (``TopicWalk``). A topic can lead through as many nodes
as filters have levels, if they mix ``+`` and names, so each node knows its ``weight``, and ``FilterTree.fits`` tells
which filters keep every match short. Filters of shared subscriptions are used without ``$share/{group}/``.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar, final

V = TypeVar("V")

# Filters of up to this many levels fit always: together they lead a topic through at most 2 ** 9 - 1 nodes. So one who
# uses up what deeper filters may take keeps no usual filter out.
SHALLOW: Final = 8
_FEW: Final = 32  # children whose weights are compared one by one


@final
class FilterNode(Generic[V]):
    """One level of filters. ``here`` has the values of filters that end at this level, ``below`` of those
    that end with ``#`` after it. ``weight``: the most nodes that one topic leads through from this node on, itself
    included. ``counts``: how many of the many children have which weight."""

    __slots__ = ("below", "children", "counts", "here", "plus", "weight")

    def __init__(self) -> None:
        # Created when first needed: a node for each vehicle is the common case, and an empty dictionary takes 64 bytes.
        self.children: dict[str, FilterNode[V]] | None = None
        self.plus: FilterNode[V] | None = None
        self.here: dict[object, V] | None = None
        self.below: dict[object, V] | None = None
        self.counts: dict[int, int] | None = None
        self.weight = 1

    def child(self, level: str) -> FilterNode[V] | None:
        """The child node for a level, also for ``+``; ``None`` if there is none."""
        if level == "+":
            return self.plus
        return None if self.children is None else self.children.get(level)

    def grow(self, level: str) -> FilterNode[V]:
        """The child node for a level; creates it if there is none."""
        node = self.child(level)
        if node is None:
            node = FilterNode()
            if level == "+":
                self.plus = node
            elif self.children is None:
                self.children = {level: node}
            else:
                self.children[level] = node
        return node

    def cut(self, level: str) -> None:
        """Remove the child node for a level."""
        if level == "+":
            self.plus = None
        elif self.children is not None:
            del self.children[level]
            if not self.children:
                self.children = None
                self.counts = None

    def reweigh(self, level: str, before: int, after: int) -> None:
        """The weight of the child node for a level was ``before`` and is ``after`` (0: there is none)."""
        if level == "+":
            self.weight += after - before
        else:
            others = 1 if self.plus is None else 1 + self.plus.weight
            self.weight = others + self._heaviest(self.weight - others, before, after)

    def _heaviest(self, heaviest: int, before: int, after: int) -> int:
        """The largest weight of a child for a name; it was ``heaviest`` before this change of one of them."""
        if self.children is None:
            return 0
        counts = self.counts
        if counts is None:
            if after >= heaviest or before < heaviest:
                heaviest = max(heaviest, after)
            else:
                heaviest = max([child.weight for child in self.children.values()])
            if len(self.children) > _FEW:
                self._count()
            return heaviest
        if after:
            counts[after] = counts.get(after, 0) + 1
        if before:
            counts[before] -= 1
            if not counts[before]:
                del counts[before]
        if after < heaviest and heaviest not in counts:
            return max(counts)
        return max(heaviest, after)

    def _count(self) -> None:
        counts: dict[int, int] = {}
        if self.children is not None:
            for child in self.children.values():
                counts[child.weight] = counts.get(child.weight, 0) + 1
        self.counts = counts

    def empty(self) -> bool:
        """Whether this node has no values and no children."""
        return self.children is None and self.plus is None and self.here is None and self.below is None


@final
class FilterTree(Generic[V]):
    """Topic filters, each with values under keys; finds the values whose filter matches a topic name. ``visited``: how
    many nodes the last match led through."""

    __slots__ = ("_root", "_size", "visited")

    def __init__(self) -> None:
        self._root: FilterNode[V] = FilterNode()
        self._size = 0
        self.visited = 0

    def __len__(self) -> int:
        """The number of values."""
        return self._size

    def add(self, filter: str, key: object, value: V) -> bool:
        """Store ``value`` under a valid filter and a key; returns ``False`` if it replaced a value."""
        parts = filter.split("/")
        rest = parts[-1] == "#"
        if rest:
            parts.pop()
        node = self._root
        path = [node]
        known = 0  # nodes of the path that existed before
        for level in parts:
            child = node.child(level)
            if child is None:
                child = node.grow(level)
            else:
                known += 1
            node = child
            path.append(node)
        if known < len(parts):
            self._grown(path, parts, known)
        values = node.below if rest else node.here
        if values is None:
            values = {}
            if rest:
                node.below = values
            else:
                node.here = values
        new = key not in values
        values[key] = value
        if new:
            self._size += 1
        return new

    def remove(self, filter: str, key: object) -> bool:
        """Remove a value, and the branch that becomes empty; returns ``False`` if there is none."""
        parts = filter.split("/")
        rest = parts[-1] == "#"
        if rest:
            parts.pop()
        node = self._root
        path: list[FilterNode[V]] = []
        for level in parts:
            path.append(node)
            child = node.child(level)
            if child is None:
                return False
            node = child
        values = node.below if rest else node.here
        if values is None or key not in values:
            return False
        del values[key]
        self._size -= 1
        if not values:
            if rest:
                node.below = None
            else:
                node.here = None
        weight = node.weight
        while path:
            after = 0 if node.empty() else node.weight
            if after == weight:
                break
            before, node = weight, path.pop()
            weight = node.weight
            level = parts[len(path)]
            if not after:
                node.cut(level)
            node.reweigh(level, before, after)
        return True

    def _grown(self, path: list[FilterNode[V]], parts: list[str], known: int) -> None:
        """The nodes of ``path`` behind the first ``known`` + 1 are new: adjust the weights, from the last one on."""
        before, after = 0, 1
        for index in range(len(parts) - 1, -1, -1):
            node = path[index]
            weight = node.weight
            if parts[index] == "+":  # as ``reweigh`` does; most levels of deep filters
                node.weight = weight + after - before
            else:
                node.reweigh(parts[index], before, after)
                if node.weight == weight and index <= known:
                    return
            before = weight if index <= known else 0
            after = node.weight

    def fits(self, filter: str, most: int) -> bool:
        """Whether a topic that ``filter`` matches leads through at most ``most`` nodes, if the filter is added. A
        filter that adds no node fits."""
        levels = filter.count("/") + 1
        if levels <= SHALLOW or self._root.weight + levels <= most:
            return True
        parts = filter.split("/")
        if parts[-1] == "#":
            parts.pop()
        path: list[FilterNode[V]] = []
        node: FilterNode[V] | None = self._root
        for level in parts:
            if node is None:
                break
            path.append(node)
            node = node.child(level)
        if node is not None:
            return True
        weight = len(parts) - len(path) + 1  # of the first new node
        for index in range(len(path) - 1, -1, -1):
            node = path[index]
            plus = 0 if node.plus is None else node.plus.weight
            weight += node.weight - plus if parts[index] == "+" else 1 + plus
        return weight <= most

    def most_nodes(self, topic: str) -> int:
        """How many nodes a topic leads through at most: a look at the nodes with its names, and at their ``+``."""
        node: FilterNode[V] | None = self._root
        most = 0
        for level in topic.split("/"):
            if node is None:
                return most
            most += 1 if node.plus is None else 1 + node.plus.weight
            node = None if node.children is None else node.children.get(level)
        return most + 1

    def match(self, topic: str) -> list[V]:
        """The values of all filters that match a valid topic name, once for each such filter."""
        found: list[V] = []
        at: list[FilterNode[V]] = [self._root]
        wild = not topic.startswith("$")  # a wildcard at the first level never matches a name with $ [MQTT-4.7.2-1]
        self.visited = 1
        for level in topic.split("/"):
            following: list[FilterNode[V]] = []
            for node in at:
                if wild:
                    if node.below is not None:
                        found.extend(node.below.values())
                    if node.plus is not None:
                        following.append(node.plus)
                if node.children is not None:
                    child = node.children.get(level)
                    if child is not None:
                        following.append(child)
            if not following:
                return found
            at = following
            self.visited += len(at)
            wild = True
        for node in at:
            if node.here is not None:
                found.extend(node.here.values())
            if node.below is not None:  # "a/#" also matches "a", section 4.7.1.2
                found.extend(node.below.values())
        return found


@final
class TopicNode(Generic[V]):
    """One level of topics. ``topic`` is the whole name if the node has a value, else empty. ``first`` and ``next``
    chain the nodes below one node, the newest first; a node that was removed keeps its ``next``, so that a walk that
    has stopped at it can go on."""

    __slots__ = ("children", "first", "next", "previous", "topic", "value")

    def __init__(self) -> None:
        self.children: dict[str, TopicNode[V]] | None = None
        self.first: TopicNode[V] | None = None  # of ``children``
        self.next: TopicNode[V] | None = None
        self.previous: TopicNode[V] | None = None
        self.topic = ""  # a topic name is never empty [MQTT-4.7.3-1]; empty: no value
        self.value: V | None = None

    def child(self, level: str) -> TopicNode[V] | None:
        """The child node for a level; ``None`` if there is none."""
        return None if self.children is None else self.children.get(level)

    def grow(self, level: str) -> TopicNode[V]:
        """The child node for a level; creates it if there is none."""
        if self.children is None:
            self.children = {}
        child = self.children.get(level)
        if child is None:
            child = TopicNode()
            child.next = self.first
            if self.first is not None:
                self.first.previous = child
            self.first = child
            self.children[level] = child
        return child

    def cut(self, level: str) -> None:
        """Remove the child node for a level."""
        if self.children is None:
            return
        child = self.children.pop(level)
        if child.previous is None:
            self.first = child.next
        else:
            child.previous.next = child.next
        if child.next is not None:
            child.next.previous = child.previous
        child.previous = None
        if not self.children:
            self.children = None


@final
class TopicWalk(Generic[V]):
    """Finds the topics that a filter matches, a bounded number of nodes at a time; the tree may change in between.

    It finds each topic that had a value from its beginning to its end, once. Of the topics that got or lost their value
    meanwhile it may find some: a node in ``found`` has lost its value if its topic was removed.
    """

    __slots__ = ("_depths", "_levels", "_nodes", "_rest", "_wide", "found")

    def __init__(self, root: TopicNode[V], filter: str) -> None:
        levels = filter.split("/")
        self._rest = levels[-1] == "#"
        if self._rest:
            levels.pop()
        self._levels = levels
        # The walk is depth first. The stacks have one entry for each level that it is in: the next node to visit, the
        # number of levels that lead to it, and whether the nodes that are chained to it are due as well.
        self._nodes: list[TopicNode[V]] = [root]
        self._depths: list[int] = [0]
        self._wide: list[bool] = [False]
        self.found: list[TopicNode[V]] = []

    def done(self) -> bool:
        """Whether everything was found."""
        return not self._nodes

    def run(self, steps: int) -> int:
        """Visit up to ``steps`` nodes; returns how many it visited."""
        nodes, depths, wide, levels = self._nodes, self._depths, self._wide, self._levels
        deepest, rest = len(levels), self._rest
        visited = 0
        while nodes and visited < steps:
            visited += 1
            node, depth = nodes[-1], depths[-1]
            following = node.next if wide[-1] else None
            if following is None:
                nodes.pop()
                depths.pop()
                wide.pop()
            else:
                nodes[-1] = following
            below: TopicNode[V] | None = None
            spread = True
            if depth == deepest:
                if node.value is not None:  # "a/#" also matches "a", section 4.7.1.2
                    self.found.append(node)
                if rest:
                    below = node.first
            else:
                level = levels[depth]
                depth += 1
                if level == "+":
                    below = node.first
                else:
                    below = node.child(level)
                    spread = False
            if below is not None:
                nodes.append(below)
                depths.append(depth)
                wide.append(spread)
        return visited


@final
class TopicTree(Generic[V]):
    """Topic names, each with one value (never ``None``); finds the topics that match a filter."""

    __slots__ = ("_hidden", "_root", "_size")

    def __init__(self) -> None:
        self._root: TopicNode[V] = TopicNode()
        self._hidden: TopicNode[V] = TopicNode()  # of the names with $, which no wildcard at the first level matches
        self._size = 0

    def __len__(self) -> int:
        """The number of topics with a value."""
        return self._size

    def node(self, topic: str) -> TopicNode[V] | None:
        """The node of a topic; ``None`` if it has none. It may have no value."""
        node = self._root_of(topic)
        for level in topic.split("/"):
            child = node.child(level)
            if child is None:
                return None
            node = child
        return node

    def get(self, topic: str) -> V | None:
        """The value of a topic; ``None`` if it has none."""
        node = self.node(topic)
        return None if node is None else node.value

    def set(self, topic: str, value: V) -> V | None:
        """Set the value of a valid topic name; returns the previous one, or ``None``."""
        node = self._root_of(topic)
        for level in topic.split("/"):
            node = node.grow(level)
        before = node.value
        if not node.topic:
            self._size += 1
        node.topic = topic
        node.value = value
        return before

    def delete(self, topic: str) -> V | None:
        """Remove the value of a topic, and the branch that becomes empty; returns the value, or ``None``."""
        parts = topic.split("/")
        node = self._root_of(topic)
        path: list[TopicNode[V]] = []
        for level in parts:
            path.append(node)
            child = node.child(level)
            if child is None:
                return None
            node = child
        if not node.topic:
            return None
        before = node.value
        node.topic = ""
        node.value = None
        self._size -= 1
        while path and not node.topic and node.children is None:
            node = path.pop()
            node.cut(parts[len(path)])
        return before

    def walk(self, filter: str) -> TopicWalk[V]:
        """Begin to look for all topics that a valid filter matches."""
        return TopicWalk(self._root_of(filter), filter)

    def match(self, filter: str) -> list[tuple[str, V]]:
        """All topics that a valid filter matches, with their values; takes as long as it takes."""
        walk = self.walk(filter)
        while not walk.done():
            walk.run(1024)
        return [(node.topic, node.value) for node in walk.found if node.value is not None]

    def _root_of(self, name: str) -> TopicNode[V]:
        """The root for a topic or a filter [MQTT-4.7.2-1]."""
        return self._hidden if name.startswith("$") else self._root
