"""The marks of the topology's keys that need words of their own: what a change means, why it is refused, what to do.

``mesh plan``, ``mesh up`` and docs/operate.md show these texts. It knows words only; the marks' meaning is in ``keys``.
"""

from __future__ import annotations

from typing import Final

from mesh.topology.keys import LIVE, Live, Members, Refused, Rolling

ACCESS: Final = Live("open connections, too; subscriptions that are no longer allowed end")
ROLES_GIVEN: Final = Live("open connections, too; subscriptions that are no longer allowed end")
ANONYMOUS: Final = Live("without it, the connections of clients without a password are closed; their sessions stay")
CERTIFICATES: Final = Live("for new connections; open ones whose client certificate is not accepted now are closed")
NEW_VEHICLES: Final = Live("for new vehicles; those that have an edge stay there")
NEW_CONNECTIONS: Final = Live("for new connections")
PASSWORD: Final = Live("for new connections")
PROVIDER: Final = Live("connections that it admitted, and does not admit in this form, are closed; sessions stay")
PROVIDERS_ASKED: Final = Live("connections that another provider admitted are closed; sessions stay")
TOKENS: Final = Live("for new connections; an open one ends with its token, or when the token's key is taken away")
TOLD: Final = Live("for new connections; an open one keeps what its CONNACK said")

BIND: Final = Rolling(("edge", "core", "door"), "the links between the nodes use the internal ports")
DOOR_MACHINE: Final = Rolling(("door",), "Ray places a front door when it starts")
IDENTITY: Final = Rolling(("door",), "connected clients were identified by the old rule, so each has to connect again")
MAP: Final = Rolling(("edge", "core", "door"), "a node's map has one size from its start on")
MOVED: Final = Rolling(("edge",), "an edge announces its pool when it starts; its vehicles stay with it")

DATA: Final = Refused(
    "the journals of all nodes are in this folder",
    "'mesh down', move the folder on each machine, then 'mesh up' with the new file",
    down=True,
)
ETCD: Final = Refused(
    "the map of the vehicles is in this etcd",
    "'mesh down', copy the mesh's keys if they are in another etcd then, and 'mesh up' with the new file",
    down=True,
)
INTERNAL: Final = Refused(
    "a node with these files and one without them do not understand each other; what is in the files may change",
    "'mesh down', then 'mesh up' with the new file",
    down=True,
)
MACHINE: Final = Refused(
    "its journal is on the machine where it runs",
    "'mesh down', move the node's folder to the new machine, then 'mesh up' with the new file",
    down=True,
)
MESH: Final = Refused(
    "all that the mesh keeps in etcd is under its name",
    "keep the name, or start a new mesh from a new file with a data folder of its own",
)
RAY: Final = Refused("all nodes run in this Ray", "'mesh down', then 'mesh up' with the new file", down=True)
TEMPLATE: Final = Refused(
    "sessions and retained messages belong to vehicles by their topics",
    "keep the template, or start a new mesh from a new file with a name and a data folder of its own",
)

CORES: Final = Members(
    added=LIVE,
    removed=Live("nothing is left behind"),
    owns="sessions of back ends or messages for edges",
    instead="keep it in the file; one that serves and has none of them can be removed while the mesh runs",
)
DOORS: Final = Members(added=LIVE, removed=Live("its connections are closed, spread over --over"))
EDGES: Final = Members(
    added=Live("it gets the fleet's retained messages before it takes vehicles"),
    removed=Live("nothing is left behind"),
    owns="vehicles",
    instead="keep it in the file with weight: 0, so that no new vehicle goes there; its vehicles stay with it",
)
ROLES: Final = Members(
    added=Live("open connections that have it, too"), removed=Live("subscriptions that are no longer allowed end")
)
LISTENERS: Final = Members(
    added=LIVE, removed=Live("its connections are closed, spread as at a node's stop"), key="address"
)
POOLS: Final = Members(added=NEW_VEHICLES, removed=NEW_VEHICLES)
PROVIDERS: Final = Members(
    added=Live("for new connections"), removed=Live("the connections that it admitted are closed; sessions stay")
)
USERS: Final = Members(
    added=Live("connections that have its name without its password are closed; their sessions stay"),
    removed=Live("its connections are closed, its sessions stay"),
    key="user",
)
