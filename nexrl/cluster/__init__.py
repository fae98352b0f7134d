"""Which processes make a run, and who this one is. `nexrl.cluster.process_group` needs torch: import it by name."""

from nexrl.cluster.identity import Identity
from nexrl.cluster.interface import find_interface, interface_of
from nexrl.cluster.roles import RankGroup, Role, Topology

__all__ = ["Identity", "RankGroup", "Role", "Topology", "find_interface", "interface_of"]
