"""Prepare data sets: python -m deeplax.data.build NAME --source=PATH.

One module per data set says which images and masks it has; `prepare` writes
them, `download` fetches archives, `command` is the command.
"""
