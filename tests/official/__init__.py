"""Independent oracles: the official code written down again, without using dkl."""
