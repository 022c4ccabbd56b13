"""The command line: parse, load, call one function, print.

`main` holds the program and turns errors into one sentence and an exit code; each other file holds the commands of one
kind. Heavy packages are imported inside commands, so that help and completion stay quick.
"""
