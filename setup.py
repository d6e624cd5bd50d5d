"""Gives setuptools what the running build hook decided; pip and tox go through the backend."""

import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).parent / "build_backend"))
import border0_build

setup(**border0_build.setup_arguments())
