# SPDX-License-Identifier: Apache-2.0
"""python -m pcmig_dashboard: says which file is to be copied where."""

import importlib.util
import pathlib
import sys


def main() -> int:
    file = next((pathlib.Path(__file__).parent / "enabled").glob("_[0-9]*_pcmig.py"))
    horizon = importlib.util.find_spec("openstack_dashboard")  # found without being loaded: no settings yet
    if horizon is None or not horizon.submodule_search_locations:
        print(f"Horizon is not in {sys.prefix}: run this with the Python that runs Horizon", file=sys.stderr)
        return 1
    print(f"cp {file} {pathlib.Path(horizon.submodule_search_locations[0]) / 'local/enabled'}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
