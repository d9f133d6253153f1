"""What the encoder sees and what is to be predicted, as indices of tokens: blocks, random tokens, a causal prefix."""
