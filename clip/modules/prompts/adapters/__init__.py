"""Methods that change the weights or biases of attention projections."""
