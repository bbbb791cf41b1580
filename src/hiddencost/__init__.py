"""What compressing a pretrained vision network costs when it is later adapted by visual prompting."""
