"""How pixels are normalised: mean and standard deviation by channel, of values from 0 to 1."""

NORMALIZATION = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # the published accuracy was measured with it
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),  # CLIP was trained with it
}
