"""The errors of the registry.

One class for each case that callers handle differently. Every message names the call, the etcd endpoint and the answer.
No error of gRPC leaves this package.
"""

from __future__ import annotations


class RegistryError(Exception):
    """The base of all errors of the registry."""


class Unavailable(RegistryError):
    """No etcd member answered in time. A change may or may not have been made. A later retry may succeed."""


class Overloaded(Unavailable):
    """Too many questions already wait for etcd; this one was not sent."""


class Unauthorised(RegistryError):
    """etcd refused the user, the password or the permission. A retry does not help."""


class Compacted(RegistryError):
    """The requested revision is no longer in etcd's history; a new snapshot is needed."""


class LeaseLost(RegistryError):
    """The lease does not exist or has expired; its keys are deleted."""


class Full(RegistryError):
    """etcd's storage quota is used up; it answers reads and refuses writes."""


class TooMany(RegistryError):
    """There are as many entries of a kind as a mesh may have."""


class RequestRejected(RegistryError):
    """etcd refused the request itself: a fault of this program."""


class Conflict(RegistryError):
    """Another process changed the record first; nothing was written."""


class TooLarge(RegistryError):
    """The value is larger than etcd can keep; nothing was written."""


class Superseded(RegistryError):
    """A newer process has announced itself under the same name; this one must not use it any longer."""


class NoEdge(RegistryError):
    """The vehicle has no record and the pool has no edge to choose."""


class BadRecord(RegistryError):
    """A value below the mesh's prefix does not have the form that this version of the mesh writes."""


class EtcdFailed(RegistryError):
    """The embedded etcd did not start, or ended by itself."""


class FolderInUse(EtcdFailed):
    """Another etcd uses the same data folder."""
