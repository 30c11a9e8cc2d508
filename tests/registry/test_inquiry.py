"""Questions to nodes and their answers, in a real etcd."""

from __future__ import annotations

from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.inquiry import Inquiries, inquire
from mesh.registry.keys import Keys
from tests.support.loop import run


def test_each_node_answers_and_nothing_is_left(etcd: EmbeddedEtcd, mesh: str) -> None:
    asked: list[str] = []

    def answer(name: str) -> dict[str, str]:
        asked.append(name)
        return {"name": name}

    async def main() -> None:
        client, keys = etcd.client(), Keys(mesh)
        nodes = [Inquiries(client, mesh, name, lambda name=name: answer(name)) for name in ("core", "edge-1")]
        for node in nodes:
            await node.start()
        assert await inquire(client, mesh, {"core", "edge-1"}, 10.0) == {
            "core": {"name": "core"}, "edge-1": {"name": "edge-1"},
        }  # fmt: skip
        assert sorted(asked) == ["core", "edge-1"]
        for prefix in (keys.asked, keys.answers):
            assert [entry async for page in client.pages(prefix) for entry in page.kvs] == []
        for node in nodes:
            await node.stop()
        await client.close()

    run(main())


def test_a_node_that_fails_to_answer_answers_the_next_question(etcd: EmbeddedEtcd, mesh: str) -> None:
    answers: list[dict[str, object]] = [{"value": object()}, {"value": 1}]

    async def main() -> None:
        client = etcd.client()
        node = Inquiries(client, mesh, "edge-1", lambda: answers.pop(0))
        await node.start()
        assert await inquire(client, mesh, {"edge-1", "absent"}, 0.3) == {}
        assert await inquire(client, mesh, {"edge-1"}, 10.0) == {"edge-1": {"value": 1}}
        await node.stop()
        await client.close()

    run(main())
