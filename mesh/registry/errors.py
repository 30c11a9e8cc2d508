"""What can go wrong between the mesh and its registry.

One class for each thing that a caller would do differently. Every message says what was asked of which etcd and what it
answered. No error of gRPC leaves this room.
"""

from __future__ import annotations


class RegistryError(Exception):
    """Anything the registry could not do."""


class Unavailable(RegistryError):
    """No etcd member answered in time. It is not known whether a change was made. Asking again later may help."""


class Overloaded(Unavailable):
    """Too many questions wait for etcd already; this one was not sent."""


class Unauthorised(RegistryError):
    """etcd refused the user, the password or the permission. Asking again does not help."""


class Compacted(RegistryError):
    """The revision that was asked for is no longer in etcd's history; a new snapshot is needed."""


class LeaseLost(RegistryError):
    """The lease does not exist (any more); its keys are gone with it."""


class Full(RegistryError):
    """etcd's storage quota is used up; it answers reads and refuses writes."""


class RequestRejected(RegistryError):
    """etcd calls the request itself wrong: a fault of this program."""


class Conflict(RegistryError):
    """Somebody else changed the record first; nothing was written."""


class Superseded(RegistryError):
    """A newer process has announced itself under the same name; this one must not speak for it any more."""


class NoEdge(RegistryError):
    """The vehicle has no record yet and the pool has no edge to choose."""


class BadRecord(RegistryError):
    """A value below the mesh's prefix is not what this version of the mesh writes."""


class EtcdFailed(RegistryError):
    """The embedded etcd did not start, or ended by itself."""


class FolderInUse(EtcdFailed):
    """Another etcd is alive on the same data folder."""
