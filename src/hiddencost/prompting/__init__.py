"""The training engine: visual prompts of all runs of a pack, learned side by side in front of one frozen network.

In come a network as its family gives it for inference, prepared images, and the recipe, which names the shape of the
prompt (`prompts`). Out go, run by run, prompts, label mappings and losses (`train`), and logits of test images
(`engine`). How the network is run on a device is a Plan, measured once and kept (`plan`): it changes the speed, and
results by rounding alone.
"""
