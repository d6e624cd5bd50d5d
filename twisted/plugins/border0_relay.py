"""Makes `twistd border0-relay` known; imports nothing of border0 and no reactor."""

from twisted.application.service import ServiceMaker

border0_relay = ServiceMaker(
    "border0 relay",
    "border0.processes.relay",
    "Where nodes meet that reach each other in no other way; it sees ciphertext only.",
    "border0-relay",
)
