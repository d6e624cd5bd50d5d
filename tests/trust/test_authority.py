"""The private authority: its files, its pin, what its leaves may say."""

import os
import stat
import time
from pathlib import Path

from cryptography import x509
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from border0.errors import ConfigError
from border0.trust import PrivateCA, load_authority, parse_pin, pin_of
from border0.trust.authority import AUTHORITY_DAYS, DAY

NOW = 1_800_000_000.0


class Authority(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.authority = PrivateCA.create(self.folder, NOW)

    def read(self) -> x509.Certificate:
        return load_authority((self.folder / "ca.pem").read_bytes())

    def test_files(self) -> None:
        if os.name != "posix":
            raise SkipTest("modes of files are POSIX's")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in self.folder.iterdir()}
        self.assertEqual(modes, {"ca.key": 0o600, "ca.pem": 0o644})
        self.assertEqual(stat.S_IMODE(self.folder.stat().st_mode), 0o700)

    def test_the_key_is_never_overwritten(self) -> None:
        before = (self.folder / "ca.key").read_bytes()
        self.assertRaises(FileExistsError, PrivateCA.create, self.folder, NOW)
        self.assertEqual((self.folder / "ca.key").read_bytes(), before)
        self.assertEqual(PrivateCA.open(self.folder, NOW).pin, self.authority.pin)

    def test_open_makes_what_is_not_there(self) -> None:
        folder = self.folder / "other"
        made = PrivateCA.open(folder, NOW)
        self.assertNotEqual(made.pin, self.authority.pin)
        self.assertEqual(PrivateCA.open(folder, NOW).certificate, made.certificate)

    def test_names_are_constrained_addresses_are_not(self) -> None:
        extensions = self.read().extensions
        constraints = extensions.get_extension_for_class(x509.NameConstraints)
        self.assertTrue(constraints.critical)
        self.assertEqual(
            constraints.value.permitted_subtrees,
            [x509.DNSName("border0.internal"), x509.DNSName("localhost")],
        )
        self.assertIs(constraints.value.excluded_subtrees, None)
        basic = extensions.get_extension_for_class(x509.BasicConstraints)
        self.assertTrue(basic.critical and basic.value.ca)
        self.assertEqual(basic.value.path_length, 0)

    def test_pin(self) -> None:
        self.assertEqual(self.authority.pin, pin_of(self.read()))
        self.assertEqual(parse_pin(self.authority.pin), self.authority.pin)
        self.assertEqual(parse_pin(self.authority.pin.upper() + "\n"), self.authority.pin)
        for text in ("", "sha256:", "sha256:" + "g" * 64, "sha1:" + "a" * 64, "a" * 64):
            self.assertRaises(ConfigError, parse_pin, text)

    def test_the_certificate_is_renewed_and_the_pin_stays(self) -> None:
        early = NOW + AUTHORITY_DAYS * DAY / 2
        self.assertEqual(PrivateCA.load(self.folder, early).certificate, self.authority.certificate)
        late = NOW + AUTHORITY_DAYS * DAY * 0.9
        renewed = PrivateCA.load(self.folder, late)
        self.assertNotEqual(renewed.certificate, self.authority.certificate)
        self.assertEqual(renewed.pin, self.authority.pin)
        self.assertEqual(self.read().subject, load_authority(self.authority.certificate).subject)
        self.assertGreater(self.read().not_valid_after_utc.timestamp(), late + 3000 * DAY)
        self.assertEqual(PrivateCA.load(self.folder, late).certificate, renewed.certificate)

    def test_stopped_between_the_two_files(self) -> None:
        (self.folder / "ca.pem").unlink()
        self.assertEqual(PrivateCA.open(self.folder, NOW).pin, self.authority.pin)
        self.assertEqual(pin_of(self.read()), self.authority.pin)

    def test_what_is_no_authority(self) -> None:
        key, pem = self.folder / "ca.key", self.folder / "ca.pem"
        good = key.read_bytes(), pem.read_bytes()
        leaf, leaf_key = self.authority.leaf(["localhost"], [], NOW)
        other = PrivateCA.create(self.folder / "other", NOW)
        for new_key, new_pem in (
            (b"", good[1]),
            (b"garbage", good[1]),
            (good[0], b"garbage"),
            (good[0], other.certificate),
            (good[0], good[1] + good[1]),
            (leaf_key, leaf.split(b"-----END CERTIFICATE-----")[0] + b"-----END CERTIFICATE-----"),
        ):
            key.write_bytes(new_key)
            pem.write_bytes(new_pem)
            self.assertRaises(ConfigError, PrivateCA.load, self.folder, NOW)
        self.assertRaises(ConfigError, PrivateCA.load, self.folder / "absent", NOW)

    def test_a_key_that_others_can_read(self) -> None:
        if os.name != "posix":
            raise SkipTest("modes of files are POSIX's")
        (self.folder / "ca.key").chmod(0o640)
        error = self.assertRaises(ConfigError, PrivateCA.load, self.folder, NOW)
        self.assertIn("chmod 600", str(error))

    def test_leaf(self) -> None:
        chain, _ = self.authority.leaf(["lab.border0.internal"], ["127.0.0.1", "::1"], NOW, 1)
        leaf, authority = x509.load_pem_x509_certificates(chain)
        self.assertEqual(pin_of(authority), self.authority.pin)
        leaf.verify_directly_issued_by(authority)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["lab.border0.internal"])
        self.assertEqual(
            [str(one) for one in names.get_values_for_type(x509.IPAddress)], ["127.0.0.1", "::1"]
        )
        self.assertEqual(leaf.not_valid_after_utc.timestamp(), NOW + DAY)
        basic = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
        self.assertFalse(basic.value.ca)

    def test_leaves_that_the_authority_does_not_sign(self) -> None:
        for names, addresses in (
            (["example.org"], []),
            (["border0.internal.example.org"], []),
            (["notborder0.internal"], []),
            ([], ["example.org"]),
            ([], []),
        ):
            self.assertRaises(ValueError, self.authority.leaf, names, addresses, time.time())
