"""The engine of Direct Noise Optimization (arXiv 2405.18881) in plain torch.

It knows no host, no reward and no regularizer: it is handed a differentiable sampling
(`render`), a decoder, an objective and the noise, and yields one `Iterate` per iteration.
"""
