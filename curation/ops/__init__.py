"""Operations on arrays: masks, flow, control signals.

Pure functions of pixels.
"""
