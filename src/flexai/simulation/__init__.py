"""Virtual time over the production core, baselines to compare it with, and the metrics of a run.

Pure and deterministic: chance comes in as seeds' numbers drawn by the caller, time as fields of events. The apps read
traces and draw plots; nothing here opens a file. Baselines are written from their papers and live only here: the
product never schedules by them.
"""
