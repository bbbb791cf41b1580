"""Networks that a study trains itself before it adapts them, dense or made sparse, where nobody publishes them.

In come images (a prepared dataset or a folder), an architecture or published weights, and an `UpstreamJob`. Out goes
a backbone as an imported one is: weights, masks and manifest, with its top-1 on the upstream test images. `training`
does one, with timm's recipes; `sparsifiers` hold the masks while it trains; `gate` says what verification asks.
"""
