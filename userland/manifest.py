# userland/manifest.py: Python modules frozen into the program.
#
# asyncio is MicroPython's own; aiorevenant and unittest are ours (upstream's lives in micropython-lib, which the pinned
# source lacks). Read by: MicroPython's tools/makemanifest.py, whose language the functions and $(...) are.
include("$(MPY_DIR)/extmod/asyncio")  # noqa: F821
module("aiorevenant.py", base_path="$(PORT_DIR)/frozen", opt=3)  # noqa: F821
module("unittest.py", base_path="$(PORT_DIR)/frozen", opt=3)  # noqa: F821
