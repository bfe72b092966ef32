"""Experiments: grids of data, noise, settings and seeds, and the tables that papers print of them.

The grids that are shipped lie in this folder, one TOML file each.
"""
