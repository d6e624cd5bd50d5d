"""Finding and ending the agent of a home."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from border0.node import launch


class Stop(SynchronousTestCase):
    def test_no_agent_runs_where_none_could_listen(self) -> None:
        # The path of a Unix socket has at most 107 bytes.
        self.assertIsNone(launch.stop(Path(self.mktemp()) / ("x" * 120)))

    def test_no_agent_runs_in_an_empty_home(self) -> None:
        self.assertIsNone(launch.stop(Path(self.mktemp())))
