"""The build of the extensions: what `setup.py` calls.

There are two kinds of extension: the Cython kernels (`_native`, whose twins are `_pure`), and the modules in
`compiled.txt`, which mypyc compiles from their Python source. `kernels` and `modules` describe them, `commands`
compiles them, `switch` reads the environment. docs/architecture/kernels.md, "What is compiled", has the numbers.
"""
