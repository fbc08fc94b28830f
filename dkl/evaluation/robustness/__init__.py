"""Which images a model classifies correctly, clean and under attack: the attacks by name, and a resumable loop."""
