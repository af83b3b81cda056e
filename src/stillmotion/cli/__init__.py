"""The command line: it parses, shows and prints; everything else happens in the rooms below.

`door.py` finds the verb and turns errors into one line and an exit code; `parsing.py` reads arguments; `screen.py`
writes to the terminal. A verb's own module is imported only when the verb is used, so that help comes at once.
"""

from stillmotion.cli.door import main as main
