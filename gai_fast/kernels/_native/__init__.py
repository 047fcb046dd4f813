"""The kernels in Cython: the same names, bytes and errors as `gai_fast.kernels._pure`, which defines and lists them.

Both implementations share the code outside of the hot path: `ArrayFramer`, and JSON values that the native reader and
writer do not know (a dataclass, an integer over 64 bits, a value that must be refused). Import the names from
`gai_fast.kernels`.
"""

import gai_fast.kernels._native.encoders as encoders
import gai_fast.kernels._native.parsers as parsers
import gai_fast.kernels._native.relay as relay
import gai_fast.kernels._native.sockets as sockets
import gai_fast.kernels._native.tls as tls
from gai_fast.kernels._pure import *  # noqa: F403  # `__all__` of `_pure` is the list
from gai_fast.kernels._pure import __all__

for _module in (encoders, parsers, relay, sockets, tls):
    globals().update({name: kernel for name, kernel in vars(_module).items() if name in __all__})
