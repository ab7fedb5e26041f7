"""Fast weights that deblur old memories (HP87): the simulation of §4, the theory of §5, and the uses of §1."""
