"""Network interfaces by address: Gloo and NCCL want to be told which one to use (GLOO_SOCKET_IFNAME)."""

import fcntl
import socket
import struct

from nexrl.errors import ConfigError

_SIOCGIFADDR = 0x8915  # linux/sockios.h


def interface_of(address: str) -> str:
    """Name of the interface that has the IPv4 `address` (`lo` for 127.0.0.1); raises ConfigError where none has."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode())
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            except OSError:  # an interface without an IPv4 address
                continue
            found[socket.inet_ntoa(answer[20:24])] = name
    if address not in found:
        raise ConfigError(f"no interface has the address {address!r}; found {found}", key="NEXRL_HOST_ADDRESS")
    return found[address]
