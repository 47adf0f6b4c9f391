"""Pool <-> agent: JSON lines on the agent's Unix stream socket (``<run>/agent.sock``, owner only).

The pool sends ``{"v": 1, "id": n, "op": ..., ...}``; the agent answers ``{"v": 1, "id": n, "ok": true, ...}`` or
``{"ok": false, "code": "...", "message": "...", "remedy": "..."}``. After ``subscribe`` the agent also sends events,
``{"v": 1, "event": ..., ...}``, with a sequence number so that a reader that comes back asks for what it missed.

Operations (all idempotent by ``(job_id, member)``):

========== =============================================================== ==========================================
op          request                                                         answer
========== =============================================================== ==========================================
hello       --                                                              node (name, cpu_milli, ram_bytes, devices),
                                                                            privileged, backend per device, notes
prepare     job_id, member, token, uid, gid, grants, cpu_milli, ram_bytes   env, cgroup (or null), tenant_dir
start       job_id, member, argv, cwd, env, uid, gid, log_path,             pid, start_ticks
            time_limit_ms, idle_timeout_ms, token
attach      job_id, member, pid                                             -- (a `run` child, before exec)
signal      job_id, member, signal, grace_ms (0: only the signal)           --
pause       job_id, member / unpause                                        --
park        job_id, member / wake                                           seconds
resize      job_id, member, grants                                          --
unprepare   job_id, member                                                  --
tenants     --                                                              prepared members: job_id, member, token,
                                                                            state, pid, exit_code, cause
usage       --                                                              per tenant and device, in ns
doctor      --                                                              list of checks (name, ok, detail, remedy)
subscribe   from_seq                                                        --
========== =============================================================== ==========================================

``token`` names one start of one member (``<job_id>.<member>.<n>``, n counts from 1): a start with a token that was used
does nothing, and ``tenants`` and the events about a member carry the token of the start they speak of, so that news of
an earlier start is not taken for news of this one. ``state`` of a tenant: ``prepared``, ``running``, ``finished`` (its
processes are gone; it stays listed, with exit_code and cause, until ``unprepare``).

Events: ``started``, ``finished`` (exit_code, signal, cause), ``shim`` (alive or lost), ``device`` (health),
``foreign`` (outside use of a card), ``usage`` (twice a second while subscribed).
"""

VERSION = 1
MAX_LINE_BYTES = 1 << 20
