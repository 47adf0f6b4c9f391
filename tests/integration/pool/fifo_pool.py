"""A pool process whose scheduler is first come, first served: what is tested here is the pool."""

import logging
import sys
from dataclasses import replace

import uvloop

from flexai.apps.pool.main import serve, settings_of
from flexai.model import Grant, JobState, PendingReason, Reason
from flexai.scheduling import commands as c
from flexai.scheduling import events as e
from flexai.wire.errors import BadInput


class Fifo:
    """First come, first served, first card that fits: enough of a scheduler to see the pool work."""

    def __init__(self):
        self.jobs, self.held, self.free, self.nodes = {}, {}, {}, {}

    def reason_for(self, job_id):
        job = self.jobs.get(job_id)
        if job is None or job_id in self.held:
            return None
        return PendingReason(Reason.HELD if job.held else Reason.NOT_ENOUGH_COMPUTE, "No card has room.")

    def step(self, event):
        out = []
        match event:
            case e.NodePut(node=node):
                self.nodes[node.name] = node
                for device in node.devices:
                    used = sum(g.compute_milli for gs in self.held.values() for g in gs if g.device == device.uuid)
                    self.free[device.uuid] = 1000 - used
            case e.JobSubmitted(job=job):
                self.jobs[job.id] = job
            case e.GrantsFound(job=job, grants=grants):
                self.jobs[job.id], self.held[job.id] = job, list(grants)
                self.free = {
                    uuid: free - sum(g.compute_milli for g in grants if g.device == uuid)
                    for uuid, free in self.free.items()
                }
            case e.JobHeld() | e.JobReleased():
                held = isinstance(event, e.JobHeld)
                self.jobs[event.job_id] = replace(self.jobs[event.job_id], held=held)
                state = JobState.HELD if held else JobState.QUEUED
                out.append(c.SetJobState(event.job_id, state, "asked"))
            case e.JobCancelled(job_id=job_id):
                if job_id in self.held:
                    out += [
                        c.Evict(job_id, m, 5000, requeue=False, cause="cancelled")
                        for m in sorted({g.member for g in self.held[job_id]})
                    ]
                elif job_id in self.jobs:
                    del self.jobs[job_id]
                    out.append(c.SetJobState(job_id, JobState.CANCELLED, "cancelled"))
            case e.JobResizeAsked(job_id=job_id):
                grants = tuple(
                    replace(g, compute_milli=event.compute_milli, limit_milli=event.limit_milli)
                    for g in self.held.get(job_id, ())
                )
                growth = sum(g.compute_milli for g in grants) - sum(g.compute_milli for g in self.held.get(job_id, ()))
                if grants and growth <= self.free[grants[0].device]:
                    self.free[grants[0].device] -= growth
                    self.held[job_id] = list(grants)
                    out.append(c.Resize(job_id, 0, grants, "asked"))
            case e.MemberStarted(job_id=job_id):
                out.append(c.SetJobState(job_id, JobState.RUNNING, "started"))
            case e.MemberFinished(job_id=job_id, member=member):
                for grant in [g for g in self.held.get(job_id, ()) if g.member == member]:
                    self.free[grant.device] = self.free.get(grant.device, 0) + grant.compute_milli
                    self.held[job_id].remove(grant)
                if not self.held.get(job_id):
                    self.held.pop(job_id, None)
                    self.jobs.pop(job_id, None)
                    cancelled = "cancel" in event.cause or "caller" in event.cause
                    state = (
                        JobState.CANCELLED
                        if cancelled
                        else (JobState.FAILED if event.exit_code else JobState.SUCCEEDED)
                    )
                    out.append(c.SetJobState(job_id, state, event.cause))
        return out + self.place()

    def place(self):
        out = []
        waiting = [
            j
            for j in self.jobs.values()
            if j.id not in self.held and not j.held and not any(a in self.jobs for a in j.after)
        ]
        for job in sorted(waiting, key=lambda j: j.seq):
            grants = []
            for member in range(job.n_members):
                for uuid, free in self.free.items():
                    if free >= job.request.compute_milli:
                        self.free[uuid] -= job.request.compute_milli
                        grants.append(
                            Grant(
                                job.id,
                                member,
                                "node",
                                uuid,
                                job.request.compute_milli,
                                job.request.limit_milli,
                                job.request.memory_bytes,
                                job.request.tenant_class,
                            )
                        )
                        break
            if len(grants) < job.n_members:
                for g in grants:
                    self.free[g.device] += g.compute_milli
                break
            self.held[job.id] = grants
            out += [c.Start(job.id, g.member, (g,), "fits") for g in grants]
            out.append(c.SetJobState(job.id, JobState.STARTING, "fits"))
        return out


def main():
    logging.basicConfig(level=logging.INFO)
    try:
        return uvloop.run(serve(settings_of(None), Fifo))
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
