"""The agent: one process per node that finds its cards and holds its tenants to their slices.

``main`` composes: device backend (NVML, or the fake for tests), containment (cgroups or process trees), regions, the
arbiter's client, the checkpoint, the state machine of ``flexai.node``, and two sockets: ``agent.sock`` for the pool
(``wire.agent_rpc``) and ``hello.sock`` for the shims. Every state change goes through the machine; its commands are
carried out in order. The agent may be killed at any point: jobs go on under their supervisors, the arbiter goes on with
the last policy, and the next agent finds everything again from the checkpoint, the tokens and the cgroups.
"""
