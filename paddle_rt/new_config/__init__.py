"""A config for a data set of one's own, with numbers that follow from the data and the machine, and the reasons."""
