"""The production TPU compiler, ahead of time: it needs the package libtpu, and no TPU.

compile.py   a module and options in, the compiled module's text out; cached, timed out, restarted
worker.py    the process that loads libtpu
"""
