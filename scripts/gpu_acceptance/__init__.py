"""The first half hour on a GPU: does it compute what a CPU computes, and how fast? Works without a network."""
