"""Whether only this machine can reach an address."""

import ipaddress
from functools import lru_cache

OPEN_TO_ALL = "Everybody who can reach %s:%s may read, change and delete everything: set API_KEYS"


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Tell it of an address or of a name; a name other than `localhost` counts as one that others can reach."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
