"""Versioned codecs: bytes and text of the outside world to values of ours and back.

Pure; bad input raises ``flexai.wire.errors.BadInput`` naming the thing, the value and the remedy. Adapters and apps
call it; it never imports ``cluster`` or ``policy``.
"""
