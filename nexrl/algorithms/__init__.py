"""The mathematics of training, as pure functions: advantages and KL control in numpy, losses and KL in torch.

Import from the module that holds the function; `advantages`, `aggregation` and `kl_control` come without torch.
"""
