"""Classical detectors: pure functions of a grey image, which nobody has to train.

Each maps grey levels to a response, brighter where a small bright target is likelier. A response has no
scale of its own, so the rule that decides on it takes its threshold from the image.
"""
