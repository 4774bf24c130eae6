"""How accepted tasks are run, told about, ended and taken over."""
