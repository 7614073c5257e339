"""Batch jobs: read as a stream, worked through here or on a cluster, written line by line.

    reading -> (local | cluster) -> results file

A `Job` is one line of a jobs file, a `Line` one line of a results file. `engines.lines_of` takes
the one and gives the other, whichever engine does the work.
"""
