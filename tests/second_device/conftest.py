"""inside/ is for a session of its own: see test_second_device.py."""

collect_ignore = ["inside"]
