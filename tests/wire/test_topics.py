"""Topic names, filters and the two trees against the definition of a match."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.wire.topics import covers, filter_error, is_shared, levels, matches, name_error, overlap, split_shared
from mesh.wire.tree import SHALLOW, FilterNode, FilterTree, TopicTree
from tests.wire import strategies

# Few letters, so that many filters match topics.
few_levels = st.sampled_from(["", "a", "b", "$s"])
few_topics = st.lists(few_levels, min_size=1, max_size=5).map("/".join).filter(bool)


@st.composite
def few_filters(draw: st.DrawFn) -> str:
    parts = draw(st.lists(st.one_of(few_levels, st.just("+")), min_size=0, max_size=5))
    if not parts or draw(st.booleans()):
        parts.append("#")
    return "/".join(parts) or "+"


def defined(filter: list[str], topic: list[str]) -> bool:
    """Section 4.7, literally."""
    if not filter:
        return not topic
    if filter[0] == "#":
        return True
    if not topic:
        return False
    return filter[0] in ("+", topic[0]) and defined(filter[1:], topic[1:])


@pytest.mark.parametrize(
    ("filter", "topic", "expected"),
    [
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("#", "anything/at/all", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/x", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/x", True),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
        ("a", "A", False),
        ("a/b", "a/b/", False),
        ("+/$x", "a/$x", True),
    ],
)
def test_matches_examples_of_the_specification(filter: str, topic: str, expected: bool) -> None:
    assert matches(filter, topic) == expected
    tree: FilterTree[int] = FilterTree()
    tree.add(filter, "key", 1)
    assert tree.match(topic) == [1] * expected
    names: TopicTree[int] = TopicTree()
    names.set(topic, 1)
    assert names.match(filter) == [(topic, 1)] * expected


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        ("a/#", "a/#", True),
        ("a/#", "a", True),
        ("a/#", "a/+/b", True),
        ("a/+", "a/b", True),
        ("a/+", "a/+", True),
        ("a/+", "a/#", False),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("a/b", "a/+", False),
        ("#", "a/#", True),
        ("#", "$SYS/#", False),
        ("+/x", "$SYS/x", False),
    ],
)
def test_covers_examples(outer: str, inner: str, expected: bool) -> None:
    assert covers(outer, inner) == expected


@given(few_filters(), few_filters(), few_topics)
def test_covering_filter_matches_all_topics_of_the_covered_one(outer: str, inner: str, topic: str) -> None:
    if covers(outer, inner) and matches(inner, topic):
        assert matches(outer, topic)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a/#", "a", True),
        ("a/+", "+/b", True),
        ("a/+/c", "a/#", True),
        ("a/b", "a/c", False),
        ("a/+", "a", False),
        ("a", "a/b/#", False),
        ("#", "$SYS/x", False),
        ("$SYS/#", "$SYS/+", True),
    ],
)
def test_overlap_examples(one: str, other: str, expected: bool) -> None:
    assert overlap(one, other) == overlap(other, one) == expected


@given(few_filters(), few_filters(), few_topics)
def test_filters_that_match_a_common_topic_overlap(one: str, other: str, topic: str) -> None:
    if matches(one, topic) and matches(other, topic):
        assert overlap(one, other)


@given(few_filters(), few_topics)
def test_matches_agrees_with_the_definition(filter: str, topic: str) -> None:
    hidden = topic.startswith("$") and filter[0] in "+#"
    assert matches(filter, topic) == (not hidden and defined(levels(filter), levels(topic)))


@given(strategies.topics)
def test_valid_name_has_no_error(topic: str) -> None:
    assert name_error(topic) == ""
    assert matches(topic, topic)
    assert matches("#", topic) == (not topic.startswith("$"))


@given(strategies.filters())
def test_valid_filter_has_no_error(filter: str) -> None:
    assert filter_error(filter) == ""
    group, rest = split_shared(filter)
    assert is_shared(filter) == bool(group)
    assert filter == (f"$share/{group}/{rest}" if group else rest)


@pytest.mark.parametrize(
    "name",
    ["", "a/+", "#", "a\0", "\ud800", "x" * 65_536, "ä" * 32_768, "/".join("a" * 129)],
    ids=lambda name: name[:6],
)
def test_invalid_name_has_an_error(name: str) -> None:
    assert name_error(name)


@pytest.mark.parametrize(
    "filter",
    [
        "",
        "#/a",
        "a#",
        "a/#/b",
        "##",
        "a+",
        "+a/b",
        "a/b+",
        "++",
        "a\0",
        "\ud800",
        "x" * 65_536,
        "$share/",
        "$share/g",
        "$share/g/",
        "$share//a",
        "$share/+/a",
        "$share/#/a",
        "$share/g/a#",
        "$share/a+/b",
        "/".join("a" * 129),
    ],
    ids=lambda filter: filter[:12],
)
def test_invalid_filter_has_an_error(filter: str) -> None:
    assert filter_error(filter)


def test_longest_and_deepest_names_and_filters_are_valid() -> None:
    assert name_error("x" * 65_535) == ""
    assert name_error("/".join("a" * 128)) == ""
    assert filter_error("/".join("+" * 128)) == ""


def weighed(node: FilterNode[Any]) -> int:
    """The most nodes that a topic leads through from ``node`` on; checks what each node knows of that."""
    plus = 0 if node.plus is None else weighed(node.plus)
    weight = 1 + plus + max(map(weighed, (node.children or {}).values()), default=0)
    assert node.weight == weight
    return weight


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5), st.booleans()), max_size=200))
def test_a_node_with_many_children_knows_the_heaviest(steps: list[tuple[int, int, bool]]) -> None:
    tree: FilterTree[int] = FilterTree()
    for number in range(40):
        tree.add(f"a/{number}", 1, 1)
    for number, depth, there in steps:
        filter = "/".join(["a", str(number), *"+" * depth])
        if there:
            tree.add(filter, 1, 1)
        else:
            tree.remove(filter, 1)
        weighed(tree._root)


@given(st.lists(few_filters(), max_size=30), st.integers(1, 40))
def test_filters_that_fit_keep_every_match_short(filters: list[str], most: int) -> None:
    tree: FilterTree[int] = FilterTree()
    added: list[str] = []
    for filter in filters:
        before, deep = tree._root.weight, "x/" * SHALLOW + filter
        if tree.fits(deep, most):
            tree.add(deep, 1, 1)
            added.append(deep)
            assert tree._root.weight <= max(most, before)
        else:
            other: FilterTree[int] = FilterTree()
            for known in (*added, deep):
                other.add(known, 1, 1)
            assert other._root.weight > most


@given(
    st.lists(st.tuples(few_filters(), st.integers(0, 3), st.booleans()), max_size=30), st.lists(few_topics, min_size=1)
)
def test_filter_tree_agrees_with_a_list_of_filters(steps: list[tuple[str, int, bool]], topics: list[str]) -> None:
    tree: FilterTree[tuple[str, int]] = FilterTree()
    plain: dict[tuple[str, int], tuple[str, int]] = {}
    for filter, key, there in steps:
        if there:
            assert tree.add(filter, key, (filter, key)) == ((filter, key) not in plain)
            plain[filter, key] = (filter, key)
        else:
            assert tree.remove(filter, key) == (plain.pop((filter, key), None) is not None)
        assert len(tree) == len(plain)
        assert weighed(tree._root) == tree._root.weight
    for topic in topics:
        assert sorted(tree.match(topic)) == sorted(value for value in plain.values() if matches(value[0], topic))
    for filter, key in plain:
        assert tree.remove(filter, key)
    assert len(tree) == 0
    assert tree._root.empty()


@given(
    st.lists(st.tuples(few_topics, st.integers(0, 9), st.booleans()), max_size=30), st.lists(few_filters(), min_size=1)
)
def test_topic_tree_agrees_with_a_table_of_topics(steps: list[tuple[str, int, bool]], filters: list[str]) -> None:
    tree: TopicTree[int] = TopicTree()
    plain: dict[str, int] = {}
    for topic, value, there in steps:
        if there:
            assert tree.set(topic, value) == plain.get(topic)
            plain[topic] = value
        else:
            assert tree.delete(topic) == plain.pop(topic, None)
        assert len(tree) == len(plain)
        assert tree.get(topic) == plain.get(topic)
    for filter in filters:
        assert sorted(tree.match(filter)) == sorted(item for item in plain.items() if matches(filter, item[0]))
    for topic in plain:
        tree.delete(topic)
    for root in (tree._root, tree._hidden):
        assert root.children is None
        assert root.first is None


STEP = st.tuples(few_topics, st.integers(0, 9), st.booleans())


@given(st.lists(STEP, max_size=30), few_filters(), st.lists(st.lists(STEP, max_size=3), max_size=30))
def test_a_walk_finds_each_topic_that_stays_once_while_others_come_and_go(
    before: list[tuple[str, int, bool]], filter: str, steps: list[list[tuple[str, int, bool]]]
) -> None:
    tree: TopicTree[int] = TopicTree()
    for topic, value, there in before:
        if there:
            tree.set(topic, value)
        else:
            tree.delete(topic)
    staying = {topic for topic, _ in tree.match(filter)}
    walk = tree.walk(filter)
    for changes in steps:
        assert walk.run(1) <= 1
        for topic, value, there in changes:
            if there:
                tree.set(topic, value)
            else:
                tree.delete(topic)
                staying.discard(topic)
    while not walk.done():
        assert walk.run(2) > 0
    found = [node.topic for node in walk.found if node.value is not None]
    assert len(found) == len(set(found))
    assert staying <= set(found)
    assert all(matches(filter, topic) for topic in found)


def test_a_walk_takes_one_step_for_each_node() -> None:
    tree: TopicTree[int] = TopicTree()
    for number in range(10):
        tree.set(f"{number}/a/b", number)
    walk = tree.walk("+/+/+")
    assert walk.run(5) == 5
    assert not walk.done()
    assert walk.run(1000) == 26
    assert walk.done()
    assert sorted(node.value or 0 for node in walk.found) == list(range(10))


def test_second_value_under_a_key_replaces_the_first() -> None:
    tree: FilterTree[int] = FilterTree()
    assert tree.add("a/#", "k", 1)
    assert not tree.add("a/#", "k", 2)
    assert tree.match("a") == [2]
    assert not tree.remove("a/#", "other")
    assert not tree.remove("a", "k")
    assert not tree.remove("b/#", "k")


def test_deep_trees_need_no_stack() -> None:
    deep = "/".join("a" * 50_000)
    tree: FilterTree[int] = FilterTree()
    tree.add(deep + "/#", 1, 1)
    names: TopicTree[int] = TopicTree()
    names.set(deep, 1)
    left: FilterTree[int] = FilterTree()
    left.add(deep, 1, 1)
    del left  # frees a long chain of nodes at once
    assert tree.match(deep) == [1]
    assert names.match("#") == [(deep, 1)]
    assert tree.remove(deep + "/#", 1)
    assert names.delete(deep) == 1
    assert tree._root.empty()
    assert names._root.children is None
