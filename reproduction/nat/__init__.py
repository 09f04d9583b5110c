"""NAT, the baseline: a controller learns, with a supernet, which edges of a cell become none or skip connections.

Source: Guo et al. 2019, "NAT: Neural Architecture Transformer for Accurate and Compact Architectures".
"""
