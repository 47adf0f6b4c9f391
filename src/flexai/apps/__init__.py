"""One folder, one process (or one kind of command). Composition happens here and only here.

An app reads settings, makes adapters, hands them to the state machines and runs the loop. Apps never import each
other: they talk over sockets.
"""
