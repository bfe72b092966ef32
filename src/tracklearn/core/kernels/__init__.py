"""Compiled inner loops, the only place that imports numba: import its modules inside functions only.

Every kernel trusts its arguments, releases the interpreter lock and is compiled once per machine
(`compiled.py`). Row numbers are int64 except the columns of sparse rows, which are int32.
"""
