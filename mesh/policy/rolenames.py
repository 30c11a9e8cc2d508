"""The names of roles as tokens and other servers give them.

It knows texts: never what a role permits. What always holds: their number and lengths are bounded.
"""

from __future__ import annotations

from typing import Final

from mesh.broker.written import is_written

MAX_ROLES: Final = 64
MAX_ROLE: Final = 128  # characters


def roles_of(found: object) -> tuple[str, ...]:
    """Roles from JSON: a list of texts, or one text with blanks between. Raises ``ValueError``."""
    listed = found.split() if isinstance(found, str) else found
    if not isinstance(listed, list):
        raise ValueError("the roles are neither a list nor a text")
    if len(listed) > MAX_ROLES:
        raise ValueError(f"there are {len(listed)} roles, and the limit is {MAX_ROLES}")
    for role in listed:
        if not isinstance(role, str) or not is_name(role):
            raise ValueError(
                f"{role!r:.80} is not a role: a role is a text of 1 to {MAX_ROLE} printable characters, and does not "
                "begin with a brace"
            )
    return tuple(dict.fromkeys(listed))


def is_name(text: str) -> bool:
    """Whether a text can be the name of a role."""
    return 0 < len(text) <= MAX_ROLE and text.isprintable() and not is_written(text)
