"""Storage stopped at any moment: what was acknowledged, an owner to be made anew, and pictures of the disk.

For the tests of storage and their longer form. Found by `pythonpath` of pytest's settings.
"""
