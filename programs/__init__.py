"""`make programs`: unmodified programs against a running gateway, in front of an upstream that follows a script.

README.md holds what a program's user pastes. The same blocks are run here; nothing is replaced but the address.
"""
