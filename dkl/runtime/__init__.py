"""The device and the processes of a command, and what a signal does to them."""
