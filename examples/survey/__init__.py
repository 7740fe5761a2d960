"""Three agents read a folder of source code; a person approves; a report is written.

`workflow.py` is the durable part and the place to start reading. The agents beside it are plain Python: each
could as well ask a language model, and nothing about the workflow would change.
"""
