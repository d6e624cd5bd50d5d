"""What quickstart prints."""

from twisted.trial.unittest import SynchronousTestCase

from border0.processes.quickstart import DEFAULT_LABEL, advice

LINK = "https://192.0.2.7:8443/setup?link=" + "x" * 43


class Advice(SynchronousTestCase):
    def say(self, *, label: str = DEFAULT_LABEL, alone: bool = True) -> list[str]:
        return advice("border0", label, True, [], LINK, alone)

    def test_who_listens_on_loopback_is_told_how_others_join(self) -> None:
        said = "\n".join(self.say())
        self.assertIn("border0 quickstart --listen ADDRESS  # instead:", said)
        self.assertNotIn("connector invite", said)

    def test_a_second_machine_is_one_command(self) -> None:
        said = "\n".join(self.say(alone=False))
        self.assertIn("border0 connector invite NAME  # a second machine", said)
        self.assertNotIn("quickstart --listen", said)

    def test_another_home_is_in_every_command(self) -> None:
        lines = self.say(label="~/other", alone=False)
        commands = [line for line in lines if line.startswith("  border0 ")]
        self.assertEqual(3, len(commands))
        for line in commands:
            self.assertIn("--home ~/other", line)

    def test_it_is_short(self) -> None:
        lines = self.say(alone=False)
        self.assertLess(len(lines) + 3, 10)  # with three services
        for line in lines[:-1]:  # a link is as long as it is
            self.assertLessEqual(len(line), 100)
