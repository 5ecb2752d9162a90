"""Takes a suspicious self-supervised vision encoder and gives it back without its backdoor."""
