"""The search for retained topics, in portions and while they change."""

from __future__ import annotations

import random

from mesh.broker.search import Search
from mesh.wire.tree import TopicTree


def tree_of(count: int) -> tuple[TopicTree[int], dict[str, int]]:
    """Topics with items in an order that is not that of the tree."""
    items = list(range(1, count + 1))
    random.Random(7).shuffle(items)
    plain = {f"r/{number}": item for number, item in enumerate(items)}
    tree: TopicTree[int] = TopicTree()
    for topic, item in plain.items():
        tree.set(topic, item)
    return tree, plain


def test_the_result_is_in_the_order_of_the_items() -> None:
    tree, plain = tree_of(5000)
    search = Search(tree, "r/+", 100, 4000)
    calls = 0
    while not search.done:
        calls += 1
        assert 0 < search.run(700) <= 3000
    assert calls > 10
    assert [node.value for node in search.found] == list(range(101, 4001))
    assert [plain[node.topic] for node in search.found] == list(range(101, 4001))


def test_topics_that_change_during_the_search_do_not_disturb_the_order_of_the_others() -> None:
    tree, plain = tree_of(5000)
    search = Search(tree, "#", 0, 5000)
    chance = random.Random(8)
    changed: set[str] = set()
    item = 5000
    while not search.done:
        search.run(300)
        for _ in range(20):
            topic = chance.choice(list(plain))
            changed.add(topic)
            item += 1
            if chance.random() < 0.5:
                tree.set(topic, item)
            else:
                tree.delete(topic)
    found = [node.topic for node in search.found if node.value is not None and node.value <= 5000]
    assert found == sorted(set(plain) - changed, key=plain.__getitem__)


def test_a_search_that_finds_nothing_ends() -> None:
    search = Search(TopicTree(), "a/b", 0, 10)
    while not search.done:
        assert search.run(1) >= 1
    assert search.found == []
