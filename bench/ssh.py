"""The SSH contest, interleaved: the proxy alone on loopback, then everything through the tunnel.

`python -m bench.ssh [--rounds N] [--megabytes M] [--quick] [--strict] [--tunnel-only]`.
The proxy's rivals are direct OpenSSH and a bare relay on stock Conch; the
tunnel's part (root) is ssh_tunnel.py. Bulk by `cat`, scp and sftp each way in MB/s, a key's echo
on a terminal in ms, login and a command in ms.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import ssh_tunnel
from bench.report import Rounds, Verdicts
from bench.ssh_contestant import BULK, ECHO, Contestant, one_round
from tests.integration.ssh_proxy import EVERYTHING, ProxyProcess
from tests.support.counterparts import missing
from tests.support.openssh import OpenSSHServer, options

DIRECT, BARE, OURS = "direct", "conch", "border0"


def _loopback(name: str, port: int, user: str, key: str = "/dev/null") -> Contestant:
    given = options(port, "/dev/null", f"IdentityFile={key}", "Compression=no")
    return Contestant(name, f"{user}@127.0.0.1", given)


def proxy_contest(source: Path, folder: Path, number: int, keys: int, verdicts: Verdicts) -> None:
    """Run the rounds on loopback, print the table and judge the ratios."""
    server = OpenSSHServer().start()
    settings = server.upstream()
    ours = ProxyProcess(settings, {"all": EVERYTHING})
    bare = subprocess.Popen(
        [sys.executable, "-m", "bench.conch", json.dumps(settings)], stdout=subprocess.PIPE
    )
    assert bare.stdout is not None
    rounds = Rounds()
    try:
        contestants = [
            _loopback(DIRECT, server.port, server.user, str(server.user_key)),
            _loopback(BARE, int(bare.stdout.readline()), server.user),
            _loopback(OURS, ours.port, server.user),
        ]
        for each in range(number):
            order = contestants if each % 2 else contestants[::-1]
            one_round(rounds, order, BULK, source, folder, keys)
    finally:
        bare.kill()
        bare.wait()
        ours.stop()
        server.stop()
    print("the proxy alone (bulk in MB/s)")
    print(rounds.table([DIRECT, BARE, OURS], OURS, [DIRECT, BARE]))
    for measure in BULK:
        verdicts.at_least(f"{measure}, of conch", rounds.ratio(measure, OURS, BARE), 0.8, 1.0)
        verdicts.at_least(f"{measure}, of direct", rounds.ratio(measure, OURS, DIRECT), 0, 0.5)
    verdicts.at_most("key echo added, ms", rounds.difference(ECHO, OURS, DIRECT), 1.5, 1.5)
    verdicts.complete(rounds)


def main() -> None:
    """Run the contests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--quick", action="store_true", help="one short round: does it run at all")
    parser.add_argument("--strict", action="store_true", help="status 1 when a floor is missed")
    parser.add_argument("--tunnel-only", action="store_true", help="leave out the proxy alone")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.megabytes = 1, 5
    keys = 5 if given.quick else 100
    reasons = "; ".join(filter(None, map(missing, ssh_tunnel.NEEDS)))
    if reasons and given.tunnel_only:
        parser.error(f"no tunnel: {reasons}")
    verdicts = Verdicts()
    with tempfile.TemporaryDirectory(prefix="border0-bench-") as name:
        folder = Path(name)
        folder.chmod(0o777)  # the tunnel's client is another user
        source = folder / "source"
        source.write_bytes(os.urandom(1_000_000) * given.megabytes)
        if not given.tunnel_only:
            proxy_contest(source, folder, given.rounds, keys, verdicts)
        if reasons:
            print(f"through the tunnel: not measured: {reasons}")
        else:
            ssh_tunnel.contest(source, folder, given.rounds, keys, verdicts)
    verdicts.exit(given.strict)


if __name__ == "__main__":
    main()
