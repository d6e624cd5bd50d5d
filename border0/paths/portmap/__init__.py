"""Ask the gateway for a port that leads to ours: PCP, NAT-PMP and UPnP, as pure machines.

Each machine has the room's verbs; `mapper.Mapper` tries them in turn and keeps the one that works.
"""
