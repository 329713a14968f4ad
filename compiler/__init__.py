"""The program and its memories: IR, frontends, analyses, hardware, mapping, emulator, reports, command line.

A folder imports only the folders before it:

    errors, registry, files -> ir -> frontends -> analysis -> hardware -> mapping -> emulator -> report -> cli
"""
