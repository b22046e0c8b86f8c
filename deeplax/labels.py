"""What a label is: a class, 0 to k-1, or the one that says "not labeled"."""

# In every label that a source returns, whatever the files hold.
IGNORE_LABEL = 255
