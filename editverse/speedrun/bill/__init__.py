"""The bill of a speedrun: what its stages will cost, by times of this machine or by estimates."""
