"""How many boxes a recorded load needs, from one box's measured capacity."""
