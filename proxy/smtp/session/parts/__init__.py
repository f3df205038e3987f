"""The parts that a session is put together of.

Each is a small thing with fields of its own; it takes bytes, a line or a time and returns what happened.  What follows
from that is the session's to decide, one room up; no part knows of another but by what it is given.
"""
