"""From admitted prompts to batches of groups: slots, leases, stores, readiness, and the ledger."""

from nexrl.pool.audit import LedgerAudit, LedgerReader
from nexrl.pool.create import create_store
from nexrl.pool.grouped_store import GroupedStore
from nexrl.pool.hierarchical_store import HierarchicalStore
from nexrl.pool.ledger import Ledger
from nexrl.pool.pool import PoolClosed, TrajectoryPool
from nexrl.pool.simple_store import SimpleStore
from nexrl.pool.store import Store

__all__ = [
    "GroupedStore",
    "HierarchicalStore",
    "Ledger",
    "LedgerAudit",
    "LedgerReader",
    "PoolClosed",
    "SimpleStore",
    "Store",
    "TrajectoryPool",
    "create_store",
]
