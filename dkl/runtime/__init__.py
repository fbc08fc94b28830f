"""How commands run: on which device, in how many processes, and what a signal does to them."""
