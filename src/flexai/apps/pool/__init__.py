"""The pool process: Hi Scheduler, the API on a Unix socket, and the store. One per machine.

``main`` composes: settings, the lock, the SQLite store, the agent client, the scheduler, the HTTP server. What happens
goes through one door: ``Core.post`` makes an event durable in the log, then the scheduler decides, then the book (the
pool's memory of jobs, a cache of the derived tables) takes the commands, then those are durable too, and only then the
driver carries them out. So a kill at any point leaves a log that says at least as much as was acknowledged or done.
"""
