"""What tests of ours and of others may use: checkers and contract suites.

Nothing here runs in a product process. May import everything below ``apps``.
"""
