"""`border0 ...`: one module a noun; a command appears in the help when it works.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 denied.
"""
