"""Makes `twistd border0-node` known; imports nothing of border0 and no reactor."""

from twisted.application.service import ServiceMaker

border0_node = ServiceMaker(
    "border0 node",
    "border0.processes.node",
    "A device that stays connected: in user space, or with an interface for every program.",
    "border0-node",
)
