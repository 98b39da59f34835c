"""Training data (paper, section 4 and Table 10): mixtures, samples, crops, cached latents.

From folders of shards to examples that can be packed.
"""
