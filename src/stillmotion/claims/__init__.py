"""Proofs: the recipe of the toyworld's weights, what they are held to, and the paper's claims, one file each."""
