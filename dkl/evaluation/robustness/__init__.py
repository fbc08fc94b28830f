"""Flags of correctly classified images, clean and under attack: attacks by name, in a resumable loop."""
