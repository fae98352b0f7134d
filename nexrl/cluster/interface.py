"""Network interfaces by address: Gloo and NCCL want to be told which one to use (GLOO_SOCKET_IFNAME)."""

import fcntl
import ipaddress
import socket
import struct

from nexrl.errors import ConfigError

_SIOCGIFADDR = 0x8915  # linux/sockios.h


def find_interface(wanted: str) -> tuple[str, str]:
    """IPv4 address and interface name of `wanted`, which is either; raises ConfigError, listing what there is."""
    there = _addresses()
    if wanted in there.values():
        return wanted, next(name for name, address in there.items() if address == wanted)
    if wanted in there:
        return there[wanted], wanted
    if _is_loopback(wanted):
        return wanted, "lo"
    listed = ", ".join(f"{name} has {address}" for name, address in there.items())
    raise ConfigError(
        f"no interface has the address or name {wanted!r}; here {listed or 'is none'}", key="comm.interface"
    )


def interface_of(address: str) -> str:
    """Name of the interface that has the IPv4 `address` (`lo` for 127.0.0.0/8); raises ConfigError where none has."""
    return find_interface(address)[1]


def _is_loopback(text: str) -> bool:
    try:
        return ipaddress.IPv4Address(text).is_loopback
    except ipaddress.AddressValueError:
        return False


def _addresses() -> dict[str, str]:
    """Interface → its first IPv4 address."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode())
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            except OSError:  # an interface without an IPv4 address
                continue
            found[name] = socket.inet_ntoa(answer[20:24])
    return found
