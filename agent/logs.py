"""Reads the output of tasks, from files that a shim (or a follower of a container's output) writes.

The form of the files, which writer and reader share. For each task and stream (`stdout`, `stderr`), in the
allocation's logs folder, which the task's own user cannot write:

- `<task>.<stream>`: the newest output, raw bytes, appended to over all attempts of the task;
- `<task>.<stream>.1` … `.N`: rotated, 1 the newest; `max_files` counts the current one too. Rotation renames
  `.N-1` to `.N`, …, the current one to `.1`, and opens a new current one; it never copies or truncates;
- `<task>.<stream>.marks`: one line `KIND OFFSET UNIX_MS ATTEMPT` each, appended with one write. OFFSET counts the
  bytes of the stream since the task's first attempt, over rotations. KIND is `start` (an attempt begins here),
  `rotate` (the current file begins here) or `time` (output arrived: at most one line a second). On rotation the
  writer may replace the file (write, rename) by one without the lines below the oldest byte still kept.

Marks only make `since`, `timestamps` and `previous` possible: where they are absent or torn, reading goes on
without. Files are opened with O_NOFOLLOW.
"""
