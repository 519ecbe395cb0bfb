"""Imports files of readings: what `tidewire import` does, for other programs too.

    plan = propose(Path("buoy.csv"), PlanOptions(device="buoy"))   # which column is what; refuses what is unclear
    report = await import_file(connection, plan, state_dir=...)    # resumes, imports nothing twice
    table = load(plan)                                             # or: all of a small file as columns

Files are read in blocks, each converted as columns; no reading is ever a Python object.
"""

from tidewire_cli.importing.blocks import Block, Unreadable, last_time_us, load, read_blocks
from tidewire_cli.importing.plan import ColumnPlan, ImportPlan, PlanOptions, shifted_to_now
from tidewire_cli.importing.propose import propose
from tidewire_cli.importing.run import ImportProgress, ImportReport, import_file

__all__ = [
    "Block",
    "ColumnPlan",
    "ImportPlan",
    "ImportProgress",
    "ImportReport",
    "PlanOptions",
    "Unreadable",
    "import_file",
    "last_time_us",
    "load",
    "propose",
    "read_blocks",
    "shifted_to_now",
]
