"""Trails: the record of a piece of agent work, that no interleaving of writers can break."""
