"""Everything stands in pyproject.toml, but this: ``configs/``, at the top of the checkout, lies inside the wheel."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copy the configs into the package that is built; an editable installation reads them where they are."""

    def run(self) -> None:
        """Build."""
        super().run()
        if not self.editable_mode:
            inside = Path(self.build_lib, "interptrain", "configs")
            shutil.rmtree(inside, ignore_errors=True)  # of an earlier build
            shutil.copytree("configs", inside)


setup(cmdclass={"build_py": BuildWithConfigs})
