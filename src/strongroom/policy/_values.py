"""The values of a policy's expressions that do not depend on the memory, and how they are worked out."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

LONG_MIN, LONG_MAX = -(2**63), 2**63 - 1
_LOOPBACK: Final = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_MULTICAST: Final = (ipaddress.ip_network("224.0.0.0/4"), ipaddress.ip_network("ff00::/8"))


class Failed(Exception):
    """An expression that Cedar could not evaluate either; whoever asks is refused."""


class Entity(NamedTuple):
    """A principal, action or resource by type and id."""

    type: str
    id: str


@dataclass(frozen=True, slots=True)
class Address:
    """An address or a range, as Cedar's ``ip`` keeps it: the bits behind the prefix are not cut."""

    host: ipaddress.IPv4Address | ipaddress.IPv6Address
    prefix: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises: Failed: it is none."""
        try:
            interface = ipaddress.ip_interface(text)
        except ValueError:
            raise Failed from None
        return cls(interface.ip, interface.network.prefixlen)

    def within(self, net: Any) -> bool:
        """Whether the whole range lies in ``net``, a network of ``ipaddress``."""
        return self.host.version == net.version and self.prefix >= net.prefixlen and self.host in net

    @property
    def network(self) -> Any:
        return ipaddress.ip_network((self.host, self.prefix), strict=False)

    @property
    def is_loopback(self) -> bool:
        return any(self.within(net) for net in _LOOPBACK)

    @property
    def is_multicast(self) -> bool:
        return any(self.within(net) for net in _MULTICAST)


def same(left: object, right: object) -> bool:
    """Cedar's ``==``: values of different types differ."""
    return type(left) is type(right) and left == right


def number(value: object) -> int:
    """``value`` as a Long. Raises: Failed: it is none."""
    if type(value) is not int:
        raise Failed
    return value


def long(value: int) -> int:
    """The outcome of arithmetic. Raises: Failed: it overflows."""
    if not LONG_MIN <= value <= LONG_MAX:
        raise Failed
    return value


def truth(value: object) -> bool:
    """``value`` as a Bool. Raises: Failed: it is none."""
    if type(value) is not bool:
        raise Failed
    return value


def text(value: object) -> str:
    """``value`` as a String. Raises: Failed: it is none."""
    if type(value) is not str:
        raise Failed
    return value


def members(value: object) -> frozenset[Any]:
    """``value`` as a Set. Raises: Failed: it is none."""
    if type(value) is not frozenset:
        raise Failed
    return value


def address(value: object) -> Address:
    """``value`` as an ipaddr. Raises: Failed: it is none."""
    if not isinstance(value, Address):
        raise Failed
    return value
